//! People at the real socket: who is let in, what of it reaches a decision, and what they get.

use strongroom::engines::issuers::nonce_of;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::secret_service_client::SecretServiceClient;
use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    AddGrantRequest, Conditions, CreateGroupRequest, CreateTokenRequest, EntryFilter,
    GetSecretRequest, IssueLoginCertificateRequest, ListEntriesRequest, ListProvidersRequest,
    RemoveRuleRequest, RevokeTokenRequest, SuspendIdentityRequest, UpdateIssuerRequest,
    WhoAmIResponse, add_grant_request,
};

use super::*;
use crate::support::logins::human;
use crate::support::node::{Login, csr};
use crate::support::target::until;
use crate::support::tokens::{Bearing, plain};

/// What the provider calls the vault's client.
const CLIENT: &str = "vault-cli";
const PROOF: &str = "what-only-who-asked-knows-0123456789abcdefghi";

/// A vault where people sign in by a provider, and a human whom a rule lets in.
struct People {
    f: Fixture,
    issuer: Issuer,
    admin: Client,
    stranger: Client,
}

fn provider(issuer: &Issuer, device_codes: bool) -> IssuerSettings {
    let audience = CLIENT.to_owned();
    IssuerSettings { audience, device_codes, ..settings(issuer, "people") }
}

fn person(identity: &str, claims: &[(&str, &str)]) -> AddRuleRequest {
    let yields = Some(add_rule_request::Yields::Identity(identity.to_owned()));
    let (issuer, claims) = ("corp".to_owned(), texts(claims));
    AddRuleRequest { issuer, yields, claims, ..Default::default() }
}

impl People {
    async fn new(backend: Backend, device_codes: bool) -> Self {
        let (f, issuer) = (Fixture::on(backend).await, Issuer::new());
        let mut admin = Client::new(f.connect(&f.admin).await);
        let settings = Some(provider(&issuer, device_codes));
        let request = AddIssuerRequest {
            name: "corp".into(),
            url: issuer.url(),
            settings,
            ..Default::default()
        };
        admin.add_issuer(request).await.unwrap();
        register(&f, "alice", "human", "").await;
        admin.add_rule(person("alice", &[("sub", "1001")])).await.unwrap();
        let stranger = Client::new(f.connect_as_nobody().await);
        Self { f, issuer, admin, stranger }
    }

    /// A token as the provider makes it, with more or other claims.
    fn token(&self, jti: &str, more: Value) -> String {
        let mut claims = json!({"aud": CLIENT, "sub": "1001", "nonce": nonce_of(PROOF)});
        let Value::Object(more) = more else { panic!("claims are an object") };
        claims.as_object_mut().unwrap().extend(more);
        let mut claims = self.issuer.claims(&self.f, jti, claims);
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.issuer.mint(&claims)
    }

    async fn login_as(
        &self,
        identity: &str,
        token: &str,
        proof: &str,
    ) -> Result<LoginResponse, Status> {
        let (identity, token, proof) = (identity.to_owned(), token.to_owned(), proof.to_owned());
        let request = LoginRequest { identity, token, proof, ttl_s: 0 };
        Ok(self.stranger.clone().login(request).await?.into_inner())
    }

    async fn login(&self, jti: &str, more: Value) -> Result<LoginResponse, Status> {
        self.login_as("alice", &self.token(jti, more), PROOF).await
    }

    async fn bearing(&self, bearer: &str) -> Bearing {
        bearing(&self.f.connect_as_nobody().await, bearer)
    }

    /// A token that somebody makes for themselves with another.
    async fn child(&self, own: &Bearing) -> Bearing {
        let mut client = TokenServiceClient::new(own.clone());
        let made = client.create_token(CreateTokenRequest::default()).await.unwrap();
        self.bearing(&made.into_inner().bearer).await
    }

    /// Seconds ago, as the provider says it.
    fn ago(&self, seconds: i64) -> i64 {
        self.f.node().vault.now().unwrap().seconds() - seconds
    }
}

async fn whoami(as_whom: &Bearing) -> Result<WhoAmIResponse, Status> {
    let mut client = IdentityServiceClient::new(as_whom.clone());
    Ok(client.who_am_i(WhoAmIRequest {}).await?.into_inner())
}

/// Asks for a login certificate for a key of one's own.
async fn certify(as_whom: &Bearing, name: &str) -> Result<(Login, i64), Status> {
    let (key_pem, csr_pem) = csr();
    let name = name.to_owned();
    let request = IssueLoginCertificateRequest { name, csr_pem, ..Default::default() };
    let mut client = IdentityServiceClient::new(as_whom.clone());
    let issued = client.issue_login_certificate(request).await?.into_inner();
    let login = Login { key_pem, certificate_pem: issued.certificate_pem };
    Ok((login, issued.expires_at_ms))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_asked_for_a_token_is_let_in_with_it_and_once() {
    for backend in BACKENDS {
        let mut people = People::new(backend, false).await;
        register(&people.f, "bob", "human", "").await;
        let mut addressed = person("bob", &[("sub", "1002"), ("email", "bob@example.org")]);
        people.admin.add_rule(addressed.clone()).await.unwrap();
        addressed.claims.remove(0);
        let unbound = people.admin.add_rule(addressed).await.unwrap_err();
        assert_eq!(unbound.code(), Code::InvalidArgument, "{unbound:?}");

        let token = people.token("1", json!({}));
        let refused = async |identity: &str, token: &str, proof: &str| {
            let status = people.login_as(identity, token, proof).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
            status.message().to_owned()
        };
        // Whoever stole it does not know what its nonce is made of.
        let stolen = refused("alice", &token, "").await;
        assert_eq!(refused("alice", &token, "another").await, stolen);
        assert_eq!(refused("alice", &token, &nonce_of(PROOF)).await, stolen);
        for (n, wrong) in [
            json!({"nonce": null}),
            json!({"nonce": ""}),
            json!({"nonce": PROOF}),
            json!({"nonce": [nonce_of(PROOF)]}),
            json!({"aud": "another-client"}),
            json!({"aud": AUDIENCE}),
            json!({"aud": [CLIENT, "another"]}),
            json!({"azp": "another"}),
            json!({"sub": "1003"}),
            json!({"sub": 1001}),
            json!({"exp": people.ago(120)}),
            json!({"groups": vec!["g"; 101]}),
            json!({"auth_time": people.ago(-120)}),
        ]
        .into_iter()
        .enumerate()
        {
            let wrong = people.token(&format!("wrong {n}"), wrong);
            assert_eq!(refused("alice", &wrong, PROOF).await, stolen, "{n}");
        }
        assert_eq!(refused("nobody", &token, PROOF).await, stolen, "who is not registered");
        assert_eq!(refused("bob", &token, PROOF).await, stolen);
        // An address that nobody looked at is anybody's.
        let address = |n: &str, verified: Value| {
            let more =
                json!({"sub": "1002", "email": "bob@example.org", "email_verified": verified});
            people.token(n, more)
        };
        for (n, verified) in [("a", json!(false)), ("b", json!("true")), ("c", Value::Null)] {
            assert_eq!(refused("bob", &address(n, verified), PROOF).await, stolen);
        }
        people.login_as("bob", &address("d", json!(true)), PROOF).await.unwrap();

        let session = people.login_as("alice", &token, PROOF).await.unwrap();
        assert_eq!(whoami(&people.bearing(&session.bearer).await).await.unwrap().identity, "alice");
        let lives = session.expires_at_ms - people.f.node().vault.now().unwrap().0;
        assert!((890_000..=900_000).contains(&lives), "{lives}");
        assert_eq!(refused("alice", &token, PROOF).await, stolen, "it was used");

        let contain = SuspendIdentityRequest { name: "alice".into(), reason: String::new() };
        let mut admin = IdentityServiceClient::new(people.f.connect(&people.f.admin).await);
        admin.suspend_identity(contain).await.unwrap();
        assert!(whoami(&people.bearing(&session.bearer).await).await.is_err());
        assert_eq!(refused("alice", &people.token("2", json!({})), PROOF).await, stolen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_a_nonce_is_for_those_alone_who_let_devices_in() {
    let people = People::new(Backend::Sqlite, true).await;
    people.login("1", json!({"nonce": null})).await.unwrap();
    // What the same keys sign for the same client, and shows who somebody is to others.
    for (n, other) in [
        ("access", json!({"nonce": null, "scope": "openid"})),
        ("entra", json!({"nonce": null, "scp": "openid"})),
        ("logout", json!({"nonce": null, "events": {}})),
    ] {
        assert!(people.login(n, other).await.is_err(), "{n}");
    }
    // One that has a nonce is bound to it all the same.
    let token = people.token("2", json!({}));
    assert!(people.login_as("alice", &token, "").await.is_err());
    people.login_as("alice", &token, PROOF).await.unwrap();
}

/// Lets alice read a secret, where she logged in as the grant wants.
async fn grant(people: &People, conditions: Conditions) -> Result<(), Status> {
    let request = AddGrantRequest {
        subject: Some(add_grant_request::Subject::Identity("alice".to_owned())),
        action: "secrets.get".to_owned(),
        resource: "secrets/prod/db".to_owned(),
        conditions: Some(conditions),
        ..AddGrantRequest::default()
    };
    let mut client = GrantServiceClient::new(people.f.connect(&people.f.admin).await);
    client.add_grant(request).await.map(drop)
}

/// Whether somebody may read it: there is none.
async fn may_read(as_whom: &Bearing) -> bool {
    let request = GetSecretRequest { path: "prod/db".to_owned(), version: 0 };
    let status = SecretServiceClient::new(as_whom.clone()).get_secret(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::NotFound | Code::PermissionDenied), "{status:?}");
    status.code() == Code::NotFound
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_methods_and_the_age_of_a_login_reach_the_decision() {
    for backend in BACKENDS {
        let people = People::new(backend, false).await;
        let wanted = Conditions {
            max_auth_age_s: 600,
            amr: vec!["otp".into(), "hwk".into()],
            provider_groups: vec!["dba".into()],
            ..Conditions::default()
        };
        grant(&people, wanted.clone()).await.unwrap();
        for bad in [
            Conditions { max_auth_age_s: -1, ..wanted.clone() },
            Conditions { amr: vec![String::new()], ..wanted.clone() },
            Conditions { provider_groups: vec!["g".into(); 17], ..wanted.clone() },
        ] {
            assert_eq!(grant(&people, bad).await.unwrap_err().code(), Code::InvalidArgument);
        }
        let said = |auth_time: Option<i64>, amr: &[&str], groups: &[&str]| {
            let auth_time = json!(auth_time);
            json!({"auth_time": auth_time, "amr": amr, "groups": groups})
        };
        let proven_at = people.ago(60);
        let recent = Some(proven_at);
        for (n, more, fits) in [
            ("right", said(recent, &["pwd", "hwk"], &["x", "dba"]), true),
            ("stale", said(Some(people.ago(600)), &["hwk"], &["dba"]), false),
            ("unknown", said(None, &["hwk"], &["dba"]), false),
            ("weak", said(recent, &["pwd"], &["dba"]), false),
            ("outside", said(recent, &["hwk"], &["DBA"]), false),
        ] {
            let session = people.login(n, more).await.unwrap();
            let session = people.bearing(&session.bearer).await;
            assert_eq!(may_read(&session).await, fits, "{n}");
            assert_eq!(may_read(&session).await, fits, "{n}, asked again");
        }
        let session = people.login("1", said(recent, &["otp"], &["dba"])).await.unwrap();
        let own = people.bearing(&session.bearer).await;
        let me = whoami(&own).await.unwrap();
        assert_eq!(me.auth_time_ms, proven_at * 1_000);
        let said = me.sign_in.unwrap();
        assert_eq!((said.issuer.as_str(), said.sub.as_str()), ("corp", "1001"));
        assert_eq!((said.groups, said.amr), (vec!["dba".to_owned()], vec!["otp".to_owned()]));
        assert!(me.groups.is_empty(), "a provider's groups are none of the vault's");
        // What she makes with it is not her, and a login of an administrator's signing saw nobody.
        let child = people.child(&own).await;
        assert!(!may_read(&child).await);
        let as_child = whoami(&child).await.unwrap();
        assert_eq!((as_child.sign_in, as_child.auth_time_ms), (None, me.auth_time_ms));
        let signed = crate::support::logins::login(&people.f, "alice").await;
        assert!(!may_read(&plain(&people.f.connect(&signed).await)).await);
        // A login that she asked for with her session is hers.
        let (login, _) = certify(&own, "alice").await.unwrap();
        let certified = plain(&people.f.connect(&login).await);
        assert!(may_read(&certified).await);
        people.f.clock.advance(std::time::Duration::from_mins(9));
        for late in [&own, &certified] {
            assert!(!may_read(late).await, "ten minutes after she was seen");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_for_oneself_and_ends_with_its_session() {
    for backend in BACKENDS {
        let mut people = People::new(backend, false).await;
        let session = people.login("1", json!({})).await.unwrap();
        let own = people.bearing(&session.bearer).await;
        let (login, ends) = certify(&own, "alice").await.unwrap();
        assert!(ends <= session.expires_at_ms, "{ends}");
        let certified = plain(&people.f.connect(&login).await);
        let me = whoami(&certified).await.unwrap();
        assert_eq!((me.identity.as_str(), me.method.as_str()), ("alice", "mtls"));
        assert!(me.sign_in.is_some());
        // Nobody mints for another, nor with what is not a session that somebody signed in for.
        let denied = async |as_whom: &Bearing, name: &str| {
            let status = certify(as_whom, name).await.err().unwrap();
            assert_eq!(status.code(), Code::PermissionDenied, "{name}: {status:?}");
        };
        denied(&own, "admin").await;
        denied(&people.child(&own).await, "alice").await;
        // No certificate renews itself by what it was got with.
        denied(&certified, "alice").await;
        let signed = crate::support::logins::login(&people.f, "alice").await;
        denied(&plain(&people.f.connect(&signed).await), "alice").await;

        let revoke = RevokeTokenRequest { accessor: session.accessor, reason: String::new() };
        TokenServiceClient::new(own.clone()).revoke_token(revoke).await.unwrap();
        let status = whoami(&certified).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "it ended with the session");

        // What a rule gave is dead with it, and so is the certificate.
        register(&people.f, "bob", "human", "").await;
        let added = people.admin.add_rule(person("bob", &[("sub", "1002")])).await.unwrap();
        let token = people.token("2", json!({"sub": "1002"}));
        let session = people.login_as("bob", &token, PROOF).await.unwrap();
        let own = people.bearing(&session.bearer).await;
        let (login, _) = certify(&own, "bob").await.unwrap();
        let certified = plain(&people.f.connect(&login).await);
        whoami(&certified).await.unwrap();
        let (issuer, id) = ("corp".to_owned(), added.into_inner().rule.unwrap().id);
        let request = RemoveRuleRequest { issuer, id, reason: String::new() };
        people.admin.remove_rule(request).await.unwrap();
        for dead in [&own, &certified] {
            let status = whoami(dead).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "it ended with the rule");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_who_signed_in_administers_and_the_record_says_how() {
    for backend in BACKENDS {
        let mut people = People::new(backend, false).await;
        people.admin.add_rule(person("admin", &[("sub", "1")])).await.unwrap();
        let at = people.ago(30);
        let more = json!({"sub": "1", "auth_time": at, "amr": ["hwk", "pin"]});
        let token = people.token("1", more);
        let session = people.login_as("admin", &token, PROOF).await.unwrap();
        let own = people.bearing(&session.bearer).await;
        let create =
            |name: &str| CreateGroupRequest { name: name.to_owned(), ..Default::default() };
        let mut groups = GroupServiceClient::new(own.clone());
        groups.create_group(create("by-session")).await.unwrap();
        let (login, _) = certify(&own, "admin").await.unwrap();
        let mut certified = GroupServiceClient::new(plain(&people.f.connect(&login).await));
        certified.create_group(create("by-certificate")).await.unwrap();
        // What the session makes is handed on, and administers as little as any token.
        let child = people.child(&own).await;
        let denied = GroupServiceClient::new(child).create_group(create("by-child")).await;
        assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);

        let records = RecordServiceClient::new(people.f.connect(&people.f.admin).await);
        let said = format!("signed in by corp as 1, auth_time {}, amr hwk pin", at * 1_000);
        for (action, entries) in [("issuers.login", 1), ("groups.create", 2)] {
            until("the entries have their places", async || {
                let filter = EntryFilter { action: action.to_owned(), ..Default::default() };
                let request = ListEntriesRequest { filter: Some(filter), ..Default::default() };
                let listed = records.clone().list_entries(request).await.unwrap().into_inner();
                let told = listed.entries.iter().filter(|entry| entry.detail.contains(&said));
                told.count() == entries
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_alone_say_by_what_people_are_known_and_whoever_asks_is_told_where() {
    for backend in BACKENDS {
        let mut people = People::new(backend, false).await;
        let carol = human(&people.f, "carol").await;
        let mut grants = GrantServiceClient::new(people.f.connect(&people.f.admin).await);
        for (action, issuer) in
            [("issuers.add-rule", "corp"), ("issuers.update", "corp"), ("issuers.add", "evil")]
        {
            let request = AddGrantRequest {
                subject: Some(add_grant_request::Subject::Identity("carol".to_owned())),
                action: action.to_owned(),
                resource: format!("issuers/{issuer}"),
                ..AddGrantRequest::default()
            };
            grants.add_grant(request).await.unwrap();
        }
        let mut carol = Client::new(carol);
        let taken = carol.add_rule(person("admin", &[("sub", "carols")])).await.unwrap_err();
        assert_eq!(taken.code(), Code::PermissionDenied, "{taken:?}");
        let settings = Some(provider(&people.issuer, false));
        let update = UpdateIssuerRequest { name: "corp".into(), settings, ..Default::default() };
        let taken = carol.update_issuer(update).await.unwrap_err();
        assert_eq!(taken.code(), Code::PermissionDenied, "{taken:?}");
        // Whoever asks where to sign in would be sent there.
        let request = AddIssuerRequest {
            name: "evil".into(),
            url: "https://login.evil.example".into(),
            settings: Some(provider(&people.issuer, false)),
            ..Default::default()
        };
        let taken = carol.add_issuer(request).await.unwrap_err();
        assert_eq!(taken.code(), Code::PermissionDenied, "{taken:?}");
        // Machines log in by theirs, and people by theirs.
        register(&people.f, "etl", "pipeline", "admin").await;
        let machine = people.admin.add_rule(person("etl", &[("sub", "1")])).await.unwrap_err();
        assert_eq!(machine.code(), Code::InvalidArgument, "{machine:?}");
        let request = AddIssuerRequest {
            name: "ci".into(),
            url: people.issuer.url(),
            settings: Some(super::settings(&people.issuer, "generic")),
            ..Default::default()
        };
        people.admin.add_issuer(request).await.unwrap();
        let by_ci = AddRuleRequest { issuer: "ci".into(), ..person("alice", &[("sub", "1")]) };
        let human = people.admin.add_rule(by_ci).await.unwrap_err();
        assert_eq!(human.code(), Code::InvalidArgument, "{human:?}");

        let listed = people.stranger.list_providers(ListProvidersRequest {}).await.unwrap();
        let listed = listed.into_inner().providers;
        assert_eq!(listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["corp"]);
        let corp = &listed[0];
        assert_eq!((&corp.url, corp.client_id.as_str()), (&people.issuer.url(), CLIENT));
        assert_eq!((&corp.scopes[..], corp.device_codes), (&["openid".to_owned()][..], false));
        assert_eq!(corp.ca_pem, people.issuer.ca);
        for n in 0..16 {
            let settings =
                IssuerSettings { audience: format!("c{n}"), ..provider(&people.issuer, false) };
            let url = format!("https://login{n}.example.org");
            let request = AddIssuerRequest {
                name: format!("p{n}"),
                url,
                settings: Some(settings),
                ..Default::default()
            };
            let added = people.admin.add_issuer(request).await;
            let full = added.err().map(|status| status.code());
            assert_eq!(full, (n == 15).then_some(Code::ResourceExhausted), "{n}");
        }
    }
}
