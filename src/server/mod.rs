//! Wiring: what is started in which order, and how it ends.

mod found;
mod node;
mod upkeep;

pub use found::{First, Founded, Founding, found};
pub use node::{Ingredients, Node};
