//! What can happen to the tokens of a machine, drawn at random.

use proptest::prelude::*;

/// Something that happens; a token is named by its place among those that are known.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Create {
        ttl_s: i64,
        more_s: i64,
        uses: i32,
    },
    Child {
        of: usize,
        ttl_s: i64,
        more_s: i64,
        uses: i32,
    },
    Renew {
        of: usize,
        ttl_s: i64,
    },
    Revoke {
        of: usize,
    },
    Spend {
        of: usize,
    },
    Suspend,
    Resume,
    /// The clock goes on.
    Forward {
        s: u64,
    },
    /// The wall's clock is set back, and right again.
    Back {
        s: u64,
    },
    /// The node dies while a use is made.
    Crash {
        of: usize,
    },
}

/// One of them; some come more often.
pub(super) fn step() -> impl Strategy<Value = Step> {
    let (ttl, more, any) = (1..2_000_i64, 0..2_000_i64, 0..1_000_usize);
    // Mostly those whose uses are not counted: the others have no children.
    let uses = prop_oneof![3 => Just(0), 1 => 1..4_i32];
    prop_oneof![
        4 => (ttl.clone(), more.clone(), uses.clone())
            .prop_map(|(ttl_s, more_s, uses)| Step::Create { ttl_s, more_s, uses }),
        6 => (any.clone(), ttl.clone(), more, uses)
            .prop_map(|(of, ttl_s, more_s, uses)| Step::Child { of, ttl_s, more_s, uses }),
        5 => (any.clone(), ttl).prop_map(|(of, ttl_s)| Step::Renew { of, ttl_s }),
        2 => any.clone().prop_map(|of| Step::Revoke { of }),
        5 => any.clone().prop_map(|of| Step::Spend { of }),
        1 => Just(Step::Suspend),
        2 => Just(Step::Resume),
        3 => (1..300_u64).prop_map(|s| Step::Forward { s }),
        1 => (1..1_000_u64).prop_map(|s| Step::Back { s }),
        1 => any.prop_map(|of| Step::Crash { of }),
    ]
}
