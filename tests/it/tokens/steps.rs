//! What can happen to the tokens of a machine, drawn at random.

use proptest::prelude::*;
use strongroom::proto::{Token, TokenOrder};

/// How far a token's networks, nodes and scopes are drawn in: each 0 for what its parent has, then
/// from the widest list to the narrowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lists([usize; 3]);

const NETWORKS: [&[&str]; 4] = [&[], &["127.0.0.0/8"], &["127.0.0.0/16"], &["127.0.0.1/32"]];
const AUDIENCES: [&[&str]; 4] =
    [&[], &["localhost", "a", "b"], &["localhost", "a"], &["localhost"]];
const SCOPES: [&[&str]; 4] = [
    &[],
    &["tokens/**", "identities/**"],
    &["tokens/*", "identities/*"],
    &["tokens/etl", "identities/etl"],
];

impl Lists {
    /// Whether it asks for more than a parent has.
    pub(super) fn exceed(self, parent: Self) -> bool {
        self.0.into_iter().zip(parent.0).any(|(own, up)| own != 0 && own < up)
    }

    /// What a child of a parent has that asks for these.
    pub(super) fn below(self, parent: Self) -> Self {
        let mut own = self.0;
        for (own, up) in own.iter_mut().zip(parent.0) {
            *own = (*own).max(up);
        }
        Self(own)
    }

    fn named(self) -> [Vec<String>; 3] {
        let [networks, audience, scope] = self.0;
        [NETWORKS[networks], AUDIENCES[audience], SCOPES[scope]]
            .map(|list| list.iter().map(|&text| text.to_owned()).collect())
    }

    /// Asks for them.
    pub(super) fn of(self, order: TokenOrder) -> TokenOrder {
        let [networks, audience, scope] = self.named();
        TokenOrder { networks, audience, scope, ..order }
    }

    /// Whether a token has these.
    pub(super) fn are_of(self, token: &Token) -> bool {
        self.named() == [&token.networks, &token.audience, &token.scope].map(Clone::clone)
    }
}

fn lists() -> impl Strategy<Value = Lists> {
    // Mostly left open, so that there is something to draw in further down.
    let one = || prop_oneof![3 => Just(0), 1 => 1..4_usize];
    (one(), one(), one()).prop_map(|(a, b, c)| Lists([a, b, c]))
}

/// Something that happens; a token is named by its place among those that are known.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Create {
        ttl_s: i64,
        more_s: i64,
        uses: i32,
        lists: Lists,
    },
    Child {
        of: usize,
        ttl_s: i64,
        more_s: i64,
        uses: i32,
        lists: Lists,
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
    /// A credential of a database.
    Lease {
        ttl_s: i64,
    },
    RenewLease {
        of: usize,
        ttl_s: i64,
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
        4 => (ttl.clone(), more.clone(), uses.clone(), lists())
            .prop_map(|(ttl_s, more_s, uses, lists)| Step::Create { ttl_s, more_s, uses, lists }),
        6 => (any.clone(), ttl.clone(), more, uses, lists()).prop_map(
            |(of, ttl_s, more_s, uses, lists)| Step::Child { of, ttl_s, more_s, uses, lists }
        ),
        5 => (any.clone(), ttl.clone()).prop_map(|(of, ttl_s)| Step::Renew { of, ttl_s }),
        1 => ttl.clone().prop_map(|ttl_s| Step::Lease { ttl_s }),
        2 => (any.clone(), ttl).prop_map(|(of, ttl_s)| Step::RenewLease { of, ttl_s }),
        2 => any.clone().prop_map(|of| Step::Revoke { of }),
        5 => any.clone().prop_map(|of| Step::Spend { of }),
        1 => Just(Step::Suspend),
        2 => Just(Step::Resume),
        3 => (1..300_u64).prop_map(|s| Step::Forward { s }),
        1 => (1..1_000_u64).prop_map(|s| Step::Back { s }),
        1 => any.prop_map(|of| Step::Crash { of }),
    ]
}
