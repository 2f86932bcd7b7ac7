//! Whatever is done in which order, at whatever time, with a node dying in between: no child is
//! more than its parent, no end is beyond its caps, no use is made twice, and nothing that died
//! lives again. What lives by these rules does live.

use std::os::unix::fs::PermissionsExt as _;

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use strongroom::proto::{CreateIdentityRequest, Lifecycle, PutLifecycleRequest};
use strongroom::server::{ListenerTls, Node};
use strongroom::types::Clock as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::leased::Leased;
use super::steps::{Lists, Step, step};
use super::*;
use crate::support::logins::registration;
use crate::support::node::{die, mortal};

/// What the kind of the holder may, in seconds.
pub(super) const MOST_TTL_S: i64 = 1_500;
pub(super) const MOST_AGE_S: i64 = 3_000;
/// How long the holder lives.
const HOLDER_S: i64 = 9_000;
/// Within so many milliseconds of a token's end nothing is expected of it.
pub(super) const BLUR_MS: i64 = 3_000;

/// Plays some sequences, always the same ones.
fn play_random(backend: Backend, cases: u32, steps: usize) {
    let config =
        Config { cases, max_shrink_iters: 24, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let sequences = proptest::collection::vec(step(), steps);
    let played = runner.run(&sequences, |steps| {
        runtime.block_on(play(backend, &steps));
        Ok(())
    });
    played.unwrap_or_else(|failed| panic!("{failed}"));
}

#[test]
fn no_order_of_events_clock_or_crash_gives_a_token_more_than_it_may() {
    play_random(Backend::Sqlite, 6, 120);
}

#[test]
fn nor_does_it_with_two_nodes_on_one_postgresql() {
    play_random(Backend::Postgres, 2, 70);
}

async fn play(backend: Backend, steps: &[Step]) {
    let mut world = World::new(backend).await;
    for (n, step) in steps.iter().enumerate() {
        world.turn = n % 2;
        world.step(step).await;
        if n % 20 == 19 {
            world.check().await;
        }
    }
    world.check().await;
    world.stop().await;
}

/// A token as the rules have it.
struct Known {
    accessor: String,
    bearer: String,
    parent: Option<usize>,
    /// None where they are not counted.
    uses_left: Option<i32>,
    revoked: bool,
    contained: bool,
    /// How narrow it is.
    lists: Lists,
    /// As it was shown last.
    token: Token,
}

/// The first node dies from time to time: it has a runtime of its own, which ends with it.
pub(super) struct World {
    f: Fixture,
    _shown: TempDir,
    runtime: Option<Runtime>,
    second: Option<Node>,
    pub(super) nodes: Vec<Channel>,
    pub(super) admin: Bearing,
    pub(super) etl: Vec<Channel>,
    suspended: bool,
    pub(super) ends_ms: i64,
    known: Vec<Known>,
    pub(super) leased: Leased,
    pub(super) turn: usize,
}

/// Lets nodes show a certificate that clients accept whenever it is: they have no clock to turn.
fn show_for_ever(f: &mut Fixture) -> TempDir {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = TempDir::new().unwrap();
    let (cert_file, key_file) = (dir.path().join("crt"), dir.path().join("key"));
    std::fs::write(&cert_file, made.cert.pem()).unwrap();
    std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    f.parts.tls = ListenerTls::Files { cert_file, key_file };
    f.root_pem = made.cert.pem();
    dir
}

impl World {
    async fn new(backend: Backend) -> Self {
        let mut f = Fixture::on(backend).await;
        f.node.take().unwrap().stop().await.unwrap();
        let shown = show_for_ever(&mut f);
        let (runtime, node) = mortal(&f).await;
        f.node = Some(node);
        let second = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(f.second_node().await),
        };
        let admin = f.connect(&f.admin).await;
        let lifecycle = Some(Lifecycle {
            kind: "pipeline".to_owned(),
            max_ttl_s: MOST_TTL_S,
            max_age_s: MOST_AGE_S,
            rotation_s: MOST_AGE_S,
            ..Default::default()
        });
        let mut client = IdentityServiceClient::new(admin.clone());
        client.put_lifecycle(PutLifecycleRequest { lifecycle }).await.unwrap();
        let etl =
            CreateIdentityRequest { ttl_s: HOLDER_S, ..registration("etl", "pipeline", "admin") };
        let made = client.create_identity(etl).await.unwrap().into_inner().identity.unwrap();
        let (admin, known) = (plain(&admin), Vec::new());
        let (nodes, etl) = (Vec::new(), Vec::new());
        let mut world = Self {
            ends_ms: made.expires_at_ms,
            _shown: shown,
            runtime: Some(runtime),
            suspended: false,
            turn: 0,
            leased: Leased::default(),
            f,
            second,
            nodes,
            admin,
            etl,
            known,
        };
        world.connect().await;
        world.give().await;
        world
    }

    /// Connects anew to all nodes, as the administrator and as the machine by a new login.
    async fn connect(&mut self) {
        let mut logins = Vec::new();
        if !self.suspended {
            logins.push(login(&self.f, "etl").await);
        }
        self.nodes = vec![self.f.connect(&self.f.admin).await];
        self.etl = Vec::new();
        for login in &logins {
            self.etl.push(self.f.connect(login).await);
        }
        if let Some(second) = &self.second {
            self.nodes.push(self.f.connect_to(second, &self.f.admin).await);
            for login in &logins {
                self.etl.push(self.f.connect_to(second, login).await);
            }
        }
        self.admin = plain(&self.nodes[0]);
    }

    /// Any node, with a token.
    fn by(&self, of: usize) -> Bearing {
        bearing(&self.nodes[self.turn % self.nodes.len()], &self.known[of].bearer)
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.f.clock.now().0
    }

    /// Whether a token is in force; nothing where it is about to end.
    fn lives(&self, of: usize) -> Option<bool> {
        let known = &self.known[of];
        let spent = known.uses_left == Some(0);
        if known.revoked || known.contained || spent || self.suspended {
            return Some(false);
        }
        let left_ms = known.token.expires_at_ms.min(self.ends_ms) - self.now_ms();
        let own = if left_ms <= 0 {
            Some(false)
        } else if left_ms < BLUR_MS {
            None
        } else {
            Some(true)
        };
        // Who is above it must not be revoked; who is over by time ends it by its own time.
        let mut above = known.parent;
        while let Some(up) = above {
            if self.known[up].revoked {
                return Some(false);
            }
            above = self.known[up].parent;
        }
        own
    }

    pub(super) fn holder_acts(&self) -> bool {
        !self.suspended && self.ends_ms - self.now_ms() > BLUR_MS
    }

    fn pick(&self, of: usize) -> Option<usize> {
        of.checked_rem(self.known.len())
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Create { ttl_s, more_s, uses, lists } => {
                let order = TokenOrder { max_ttl_s: ttl_s + more_s, uses, ..with(ttl_s) };
                self.create(lists.of(order), lists).await;
            }
            Step::Child { of, ttl_s, more_s, uses, lists } => {
                let Some(of) = self.pick(of) else { return };
                let order = TokenOrder { max_ttl_s: ttl_s + more_s, uses, ..with(ttl_s) };
                let (order, up) = (lists.of(order), self.known[of].lists);
                let (lives, parent) = (self.lives(of), self.by(of));
                match calm(async || child(&parent, order.clone()).await).await {
                    Ok(bearer) => {
                        assert_ne!(lives, Some(false), "a dead token made a child");
                        assert_eq!(self.known[of].uses_left, None, "a counted one made a child");
                        assert!(!lists.exceed(up), "a child of {up:?} has {lists:?}");
                        self.learn(bearer, Some(of), uses, lists.below(up)).await;
                    }
                    Err(refusal) if refusal.code() == Code::InvalidArgument => {
                        assert!(lists.exceed(up), "{up:?} {lists:?}: {refusal}");
                    }
                    Err(refusal) if refusal.code() == Code::FailedPrecondition => {
                        let deep = self.depth(of) >= 8;
                        assert!(deep || self.known[of].uses_left.is_some(), "{refusal}");
                    }
                    Err(refusal) => {
                        assert_eq!(refusal.code(), Code::Unauthenticated, "{refusal}");
                        assert_ne!(lives, Some(true), "{refusal}");
                    }
                }
            }
            Step::Renew { of, ttl_s } => self.renew(of, ttl_s).await,
            Step::Revoke { of } => {
                let Some(of) = self.pick(of) else { return };
                let accessor = self.known[of].accessor.clone();
                let admin = self.admin.clone();
                calm(async || revoke(&admin, &accessor).await).await.unwrap();
                self.known[of].revoked = true;
            }
            Step::Spend { of } => {
                let Some(of) = self.pick(of) else { return };
                let lives = self.lives(of);
                let client = TokenServiceClient::new(self.by(of));
                let spent = calm(async || client.clone().list_tokens(listing()).await).await;
                self.spent(of, lives, spent.map(drop));
            }
            Step::Lease { ttl_s } => self.lease(ttl_s).await,
            Step::RenewLease { of, ttl_s } => self.renew_lease(of, ttl_s).await,
            Step::Suspend | Step::Resume => self.turn_over(matches!(step, Step::Suspend)).await,
            Step::Forward { s } => {
                self.f.clock.advance(Duration::from_secs(s));
                self.mark().await;
            }
            Step::Back { s } => self.set_back(s).await,
            Step::Crash { of } => self.crash(of).await,
        }
    }

    async fn renew(&mut self, of: usize, ttl_s: i64) {
        let Some(of) = self.pick(of) else { return };
        let (lives, token) = (self.lives(of), self.by(of));
        match calm(async || renew(&token, "", ttl_s).await).await {
            Ok(token) => {
                assert_ne!(lives, Some(false), "a dead token was renewed");
                let before = &self.known[of].token;
                assert!(token.expires_at_ms >= before.expires_at_ms);
                assert_eq!(token.max_expires_at_ms, before.max_expires_at_ms);
                let most_ms = self.now_ms() + ttl_s.min(MOST_TTL_S) * 1_000 + BLUR_MS;
                assert!(token.expires_at_ms <= most_ms.max(before.expires_at_ms));
                self.known[of].token = token;
            }
            Err(refusal) => {
                // A node that still holds it for unspent looks at its row.
                let over = [Code::Unauthenticated, Code::FailedPrecondition];
                assert!(over.contains(&refusal.code()), "{refusal}");
                assert_ne!(lives, Some(true), "{refusal}");
            }
        }
    }

    async fn create(&mut self, order: TokenOrder, lists: Lists) {
        let Some(etl) = self.etl.get(self.turn % self.nodes.len()).cloned() else { return };
        let made = calm(async || create(&etl, order.clone()).await).await;
        if self.holder_acts() {
            self.learn(made.unwrap().bearer, None, order.uses, lists).await;
        } else {
            assert!(self.ends_ms - self.now_ms() > 0 || made.is_err());
        }
    }

    fn spent(&mut self, of: usize, lives: Option<bool>, spent: Result<(), Status>) {
        match spent {
            Ok(()) => {
                assert_ne!(lives, Some(false), "a dead token paid");
                if let Some(left) = &mut self.known[of].uses_left {
                    *left -= 1;
                }
            }
            Err(refusal) => {
                assert_eq!(refusal.code(), Code::Unauthenticated, "{refusal}");
                assert_ne!(lives, Some(true), "{refusal}");
            }
        }
    }

    async fn learn(&mut self, bearer: String, parent: Option<usize>, uses: i32, lists: Lists) {
        let node = bearing(&self.nodes[0], &bearer);
        let token = self.made(&node).await;
        self.known.push(Known {
            accessor: token.accessor.clone(),
            uses_left: (uses > 0).then_some(uses),
            revoked: false,
            contained: false,
            bearer,
            parent,
            lists,
            token,
        });
    }

    fn depth(&self, of: usize) -> usize {
        let up = |of: &usize| self.known[*of].parent;
        std::iter::successors(Some(of), up).count() - 1
    }

    async fn turn_over(&mut self, suspend: bool) {
        if suspend == self.suspended || self.ends_ms - self.now_ms() < BLUR_MS {
            return;
        }
        let client = IdentityServiceClient::new(self.admin.clone());
        let (name, reason) = ("etl".to_owned(), String::new());
        if suspend {
            let request = SuspendIdentityRequest { name, reason };
            calm(async || client.clone().suspend_identity(request.clone()).await).await.unwrap();
            self.known.iter_mut().for_each(|known| known.contained = true);
            self.suspended = true;
            self.etl = Vec::new();
        } else {
            let request = strongroom::proto::ResumeIdentityRequest { name, reason };
            calm(async || client.clone().resume_identity(request.clone()).await).await.unwrap();
            self.suspended = false;
            self.connect().await;
        }
    }

    /// Lets every node take notice of the time.
    async fn mark(&self) {
        let nodes = [Some(self.f.node()), self.second.as_ref()];
        for node in nodes.into_iter().flatten() {
            // A node that nobody asks for the time leaves the mark where it is.
            drop(node.vault.now());
            node.vault.mark_clock().await.unwrap();
        }
    }

    /// Sets the wall's clock back: what is over does not begin again, and nothing ends later.
    async fn set_back(&mut self, s: u64) {
        self.mark().await;
        let before_ms = self.now_ms();
        self.f.clock.set_back(Duration::from_secs(s));
        self.mark().await;
        for of in 0..self.known.len() {
            let dead = self.known[of].token.expires_at_ms <= before_ms - BLUR_MS;
            let answers = [
                knock(&self.by(of)).await,
                renew(&self.by(of), "", 0).await.map_or_else(|no| no.code(), |_| Code::Ok),
            ];
            for code in answers {
                let lives = code == Code::Ok;
                assert!(!(lives && dead), "{:?} lives again", self.known[of].token);
                // Beyond five seconds nobody is answered: which time it is cannot be told.
                assert!(!lives || s <= 7, "answered {s} s behind");
            }
        }
        self.f.clock.advance(Duration::from_secs(s));
        self.mark().await;
        self.look().await;
    }

    /// Lets the first node die while it takes a use, and starts it again.
    async fn crash(&mut self, of: usize) {
        let Some(of) = self.pick(of) else { return self.restart().await };
        let lives = self.lives(of);
        let token = bearing(&self.nodes[0], &self.known[of].bearer);
        let mut client = TokenServiceClient::new(token);
        let call = tokio::spawn(async move { client.list_tokens(listing()).await });
        tokio::time::sleep(Duration::from_millis(u64::try_from(of % 7).unwrap())).await;
        self.restart().await;
        let answer = call.await.unwrap();
        let accessor = self.known[of].accessor.clone();
        let admin = self.admin.clone();
        let found = calm(async || inspect(&admin, &accessor).await).await.unwrap();
        let Some(left) = self.known[of].uses_left else { return };
        let paid = left - found.uses_left;
        assert!((0..=1).contains(&paid), "{found:?}");
        // What was answered is durable; what was not may be.
        match answer {
            Ok(_) => assert!(paid == 1 && lives != Some(false), "{found:?}"),
            Err(refusal) if refusal.code() == Code::Unauthenticated => assert_eq!(paid, 0),
            Err(_lost) => {}
        }
        self.known[of].uses_left = Some(found.uses_left);
    }

    async fn restart(&mut self) {
        die(&mut self.f, self.runtime.take().unwrap());
        let (runtime, node) = mortal(&self.f).await;
        (self.runtime, self.f.node) = (Some(runtime), Some(node));
        self.mark().await;
        if self.ends_ms - self.now_ms() > BLUR_MS {
            self.connect().await;
        } else {
            self.nodes[0] = self.f.connect(&self.f.admin).await;
            self.admin = plain(&self.nodes[0]);
            self.etl = Vec::new();
        }
    }

    /// Looks at every token once more.
    async fn look(&mut self) {
        for of in 0..self.known.len() {
            let (admin, accessor) = (self.admin.clone(), self.known[of].accessor.clone());
            self.known[of].token = calm(async || inspect(&admin, &accessor).await).await.unwrap();
        }
    }

    async fn check(&mut self) {
        self.look().await;
        self.check_leases().await;
        for of in 0..self.known.len() {
            let (known, token) = (&self.known[of], &self.known[of].token);
            let most_ms = (token.created_at_ms + MOST_AGE_S * 1_000).min(self.ends_ms);
            assert!(token.expires_at_ms <= token.max_expires_at_ms, "{token:?}");
            assert!(token.max_expires_at_ms <= most_ms, "{token:?}");
            assert!(known.lists.are_of(token), "{:?} but {token:?}", known.lists);
            assert_eq!(known.uses_left.unwrap_or(0), token.uses_left, "{token:?}");
            if let Some(parent) = known.parent.map(|up| &self.known[up].token) {
                assert_eq!(token.parent, parent.accessor);
                assert!(token.expires_at_ms <= parent.expires_at_ms, "{token:?} {parent:?}");
                assert!(token.max_expires_at_ms <= parent.max_expires_at_ms);
            }
            let lives = self.lives(of);
            let bearer = self.by(of);
            let answer = calm(async || {
                let code = knock(&bearer).await;
                let known = [Code::Ok, Code::Unauthenticated].contains(&code);
                if known { Ok(code == Code::Ok) } else { Err(Status::new(code, "whoami")) }
            });
            let answer = answer.await.unwrap();
            assert!(lives.is_none_or(|lives| lives == answer), "{lives:?} but {answer}: {token:?}");
        }
    }

    async fn stop(mut self) {
        (self.nodes, self.etl) = (Vec::new(), Vec::new());
        self.admin = plain(&self.f.connect(&self.f.admin).await);
        let node = self.f.node.take().unwrap();
        drop(self.admin);
        node.stop().await.unwrap();
        if let Some(second) = self.second {
            second.stop().await.unwrap();
        }
        self.runtime.unwrap().shutdown_background();
    }
}

fn listing() -> ListTokensRequest {
    ListTokensRequest::default()
}

/// Asks again where the time cannot be told: several nodes distrust a turned clock for seconds.
pub(super) async fn calm<T>(call: impl AsyncFn() -> Result<T, Status>) -> Result<T, Status> {
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        match call().await {
            Err(refusal) if refusal.code() == Code::Unavailable => {
                assert!(std::time::Instant::now() < patience, "{refusal}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answer => return answer,
        }
    }
}
