//! `make bench`: each rate beside the ceiling measured in the same run.

fn main() {}
