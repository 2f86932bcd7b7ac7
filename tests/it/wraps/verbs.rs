//! Every call whose answer can be wrapped, and those that refuse it.

use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::enrolment_service_client::EnrolmentServiceClient;
use strongroom::proto::factor_service_client::FactorServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::issuer_service_client::IssuerServiceClient;
use strongroom::proto::key_service_client::KeyServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    AddGrantRequest, CreateEnrolmentRequest, CreateEnrolmentResponse, CreateTokenRequest,
    CreateTokenResponse, DecryptItem, DecryptRequest, DecryptResponse, GetRandomRequest,
    GetRandomResponse, InviteFactorRequest, InviteFactorResponse, IssueCertificateRequest,
    IssueCertificateResponse, IssueCredentialsRequest, IssueCredentialsResponse, JoinRequest,
    LoginRequest, MakeDataKeyRequest, MakeDataKeyResponse, MintTokenRequest, MintTokenResponse,
    PutCertificateRoleRequest, SubjectNames, WhoAmIRequest,
};

use super::*;
use crate::keys;
use crate::support::hand::Hand;
use crate::support::logins::{human, machine};
use crate::support::node::BACKENDS;
use crate::support::target::{World, ask, log_in};
use crate::support::tokens::bearing;

/// Unwraps as the wrap asks for; the message.
async fn opened<M: prost::Message + Default>(channel: &Channel, wrapped: Option<Wrapped>) -> M {
    let answer = unwrap(channel, expecting(&wrapped.unwrap())).await.unwrap().answer;
    M::decode(answer.as_slice()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_database_credential_logs_in_whom_it_is_for() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let bob = machine(&w.f, "bob").await;
        let mut client = DatabaseServiceClient::new(w.etl.clone());
        let order =
            IssueCredentialsRequest { idempotency_key: "a-key-of-the-test".into(), ..ask() };
        let told = client.issue_credentials(asked(order.clone(), "60", "bob")).await.unwrap();
        let told = told.into_inner();
        assert!(told.password.is_empty() && told.dsn.is_empty() && told.lease_handle.is_empty());
        assert_eq!(w.lease(&told.lease_id).await.state, "active");
        let issued: IssueCredentialsResponse = opened(&bob, told.wrapped).await;
        assert_eq!((&issued.lease_id, &issued.username), (&told.lease_id, &told.username));
        drop(log_in(&issued, w.port).await.unwrap());
        // A repeated call holds no secret, and wraps none.
        let again = client.issue_credentials(asked(order, "60", "bob")).await.unwrap().into_inner();
        assert!(again.replayed && again.password.is_empty() && again.wrapped.is_none());

        // What cannot be wrapped has no effect.
        for (ttl, recipient, code) in
            [("60", "mallory", Code::NotFound), ("0", "bob", Code::InvalidArgument)]
        {
            let refusal = client.issue_credentials(asked(ask(), ttl, recipient)).await.unwrap_err();
            assert_eq!(refusal.code(), code, "{refusal}");
        }
        assert_eq!(w.leases().await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_whose_wrap_cannot_be_stored_is_taken_back() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let hand = Hand::new(&w.f.parts.location);
        hand.run(match backend {
            Backend::Sqlite => {
                "CREATE TRIGGER never BEFORE INSERT ON wrap_payloads \
                 BEGIN SELECT RAISE(ABORT, 'never'); END"
            }
            Backend::Postgres => "ALTER TABLE wrap_payloads ADD CHECK (false) NOT VALID",
        })
        .await;
        let mut client = DatabaseServiceClient::new(w.etl.clone());
        let refusal = client.issue_credentials(asked(ask(), "60", "")).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Internal, "{refusal}");
        assert_eq!(w.leases().await.len(), 1);
        w.advance(601);
        w.all_over().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrapped_tokens_certificates_and_invitations_are_what_they_are_unwrapped() {
    for backend in BACKENDS {
        let w = World::new(backend).await;
        let bob = machine(&w.f, "bob").await;
        human(&w.f, "carol").await;
        let knock = async |bearer: &str| {
            let bearer = bearing(&w.f.connect_as_nobody().await, bearer);
            let answer = IdentityServiceClient::new(bearer).who_am_i(WhoAmIRequest {}).await;
            answer.unwrap().into_inner().identity
        };
        let mut tokens = TokenServiceClient::new(w.etl.clone());
        let order = asked(CreateTokenRequest::default(), "60", "bob");
        let told = tokens.create_token(order).await.unwrap().into_inner();
        assert!(told.bearer.is_empty());
        let made: CreateTokenResponse = opened(&bob, told.wrapped).await;
        assert_eq!(made.token, told.token, "what is no secret is sent as ever");
        assert_eq!(knock(made.bearer.as_str()).await, "nightly-etl");

        let order = MintTokenRequest { identity: "nightly-etl".into(), ..Default::default() };
        let mut tokens = TokenServiceClient::new(w.admin.clone());
        let told = tokens.mint_token(asked(order, "60", "bob")).await.unwrap().into_inner();
        assert!(told.bearer.is_empty());
        let made: MintTokenResponse = opened(&bob, told.wrapped).await;
        assert_eq!(knock(made.bearer.as_str()).await, "nightly-etl");

        let role = PutCertificateRoleRequest {
            name: "etl".into(),
            allowed_dns: vec!["etl.test".into()],
            ..Default::default()
        };
        PkiServiceClient::new(w.admin.clone()).put_role(role).await.unwrap();
        let (action, resource) = ("pki.issue".to_owned(), "pki/etl".to_owned());
        w.grant("nightly-etl", |it| AddGrantRequest { action, resource, ..it }).await.unwrap();
        let names = Some(SubjectNames { dns: vec!["etl.test".into()], ..Default::default() });
        let order = IssueCertificateRequest { role: "etl".into(), names, ..Default::default() };
        let mut pki = PkiServiceClient::new(w.etl.clone());
        let told = pki.issue_certificate(asked(order, "60", "bob")).await.unwrap().into_inner();
        assert!(told.private_key_pem.is_empty() && told.certificate_pem.contains("CERTIFICATE"));
        let issued: IssueCertificateResponse = opened(&bob, told.wrapped).await;
        assert_eq!(issued.certificate_pem, told.certificate_pem);
        assert!(issued.private_key_pem.contains("PRIVATE KEY"));

        let order = CreateEnrolmentRequest { identity: "nightly-etl".into(), ..Default::default() };
        let mut enrolments = EnrolmentServiceClient::new(w.admin.clone());
        let told = enrolments.create_enrolment(asked(order, "60", "bob")).await.unwrap();
        let told = told.into_inner();
        assert!(told.join_token.is_empty());
        let made: CreateEnrolmentResponse = opened(&bob, told.wrapped).await;
        assert!(made.join_token.starts_with("srj_") && made.enrolment == told.enrolment);

        let order = InviteFactorRequest { identity: "carol".into(), ..Default::default() };
        let mut factors = FactorServiceClient::new(w.admin.clone());
        let told = factors.invite_factor(asked(order, "60", "bob")).await.unwrap().into_inner();
        assert!(told.invitation.is_empty());
        let invited: InviteFactorResponse = opened(&bob, told.wrapped).await;
        assert!(invited.invitation.starts_with("sri_") && invited.accessor == told.accessor);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrapped_plaintexts_data_keys_and_random_bytes_are_what_they_are_unwrapped() {
    let p = keys::Place::new(Backend::Sqlite).await;
    let mut client = KeyServiceClient::new(p.alice.clone());
    keys::create(&mut p.alice(), "team/cipher", "xaes-256-gcm").await;
    let name = || "team/cipher".to_owned();
    let ciphertext = keys::encrypt(&mut p.alice(), &name(), CANARY, b"").await.unwrap();
    let items = vec![DecryptItem { ciphertext, associated_data: vec![] }];
    let order = DecryptRequest { name: name(), items };
    let told = client.decrypt(asked(order, "60", "etl")).await.unwrap().into_inner();
    assert!(told.results.is_empty());
    let done: DecryptResponse = opened(&p.etl, told.wrapped).await;
    assert_eq!(done.results[0].plaintext, CANARY);

    let order = MakeDataKeyRequest { name: name(), ..Default::default() };
    let told = client.make_data_key(asked(order, "60", "etl")).await.unwrap().into_inner();
    assert!(told.plaintext.is_empty());
    let made: MakeDataKeyResponse = opened(&p.etl, told.wrapped).await;
    assert_eq!((made.plaintext.len(), &made.ciphertext), (32, &told.ciphertext));

    let order = asked(GetRandomRequest { len_bytes: 48 }, "60", "etl");
    let told = client.get_random(order).await.unwrap().into_inner();
    assert!(told.data.is_empty());
    let given: GetRandomResponse = opened(&p.etl, told.wrapped).await;
    assert_eq!(given.data.len(), 48);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_no_secret_or_asks_wrongly_is_refused_and_does_nothing() {
    let p = Place::new(Backend::Sqlite).await;
    let refused = |status: Status| assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let mut whoami = IdentityServiceClient::new(p.alice().clone());
    refused(whoami.who_am_i(asked(WhoAmIRequest {}, "60", "")).await.unwrap_err());
    refused(whoami.who_am_i(asked(WhoAmIRequest {}, "", "etl")).await.unwrap_err());
    let mut client = p.place.alice();
    let write = secrets::request("team/other", CANARY, 0);
    refused(client.put_secret(asked(write, "60", "")).await.unwrap_err());
    assert_eq!(put(&mut client, "team/other", CANARY, 0).await, Ok(1), "nothing was written");
    // Who logs in has nobody to wrap for yet.
    let nobody = p.f().connect_as_nobody().await;
    let login = asked(LoginRequest::default(), "60", "");
    refused(IssuerServiceClient::new(nobody.clone()).login(login).await.unwrap_err());
    let join = asked(JoinRequest::default(), "60", "");
    refused(EnrolmentServiceClient::new(nobody).join(join).await.unwrap_err());
    for ttl in ["0", "86401", "-1", "2m", "1.5"] {
        refused(p.wrap(ttl, "").await.unwrap_err());
    }
    for recipient in ["ETL", "a b", "*"] {
        refused(p.wrap("60", recipient).await.unwrap_err());
    }
    // Nor is what was wrapped wrapped again.
    let wrapped = p.wrap("60", "etl").await.unwrap();
    let again = asked(expecting(&wrapped), "60", "eve");
    refused(WrapServiceClient::new(p.etl().clone()).unwrap(again).await.unwrap_err());
    assert_eq!(value(p.etl(), &wrapped).await.unwrap(), CANARY);
    // The handle bears no call.
    let bearer = bearing(&p.f().connect_as_nobody().await, &wrapped.handle);
    let refusal = IdentityServiceClient::new(bearer).who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
}
