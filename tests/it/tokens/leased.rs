//! Leases and certificates among what happens at random: none lives beyond its role, its grant, its
//! kind or its holder, whatever is done in which order.

use strongroom::proto::database_service_client::DatabaseServiceClient;
use strongroom::proto::grant_service_client::GrantServiceClient;
use strongroom::proto::lease_service_client::LeaseServiceClient;
use strongroom::proto::pki_service_client::PkiServiceClient;
use strongroom::proto::{
    AddGrantRequest, Grant, IssueCredentialsRequest, Lease, ListCertificatesRequest,
    ListLeasesRequest, PutCertificateRoleRequest, PutConnectionRequest, PutDatabaseRoleRequest,
    RenewLeaseRequest, SignCertificateRequest, SubjectNames,
};

use super::properties::{BLUR_MS, MOST_AGE_S, MOST_TTL_S, World, calm};
use super::*;
use crate::support::node::csr;
use crate::support::postgres::Postgres;
use crate::support::target::{ACCOUNT_PASSWORD, ask, prepare};

/// What the roles may, in seconds: more at once than the holder's kind.
const ROLE_S: i64 = 2_000;
/// How long the grant lives: less than the holder.
const GRANT_S: i64 = 4_000;
/// So many are enough: each is a role in the target.
const MOST: usize = 12;

/// The right to a database, and what came of it.
#[derive(Default)]
pub(super) struct Leased {
    grant_ends_ms: i64,
    known: Vec<Lease>,
}

impl World {
    /// Gives the holder rights to a database and to certificates that end before it does.
    pub(super) async fn give(&mut self) {
        let tag = prepare(Postgres::shared()).await;
        let connection = PutConnectionRequest {
            name: "analytics".into(),
            host: "127.0.0.1".into(),
            port: Postgres::shared().port().into(),
            database: format!("t_{tag}"),
            username: format!("account_{tag}"),
            password: ACCOUNT_PASSWORD.into(),
            tls: "off".into(),
            ..Default::default()
        };
        let role = PutDatabaseRoleRequest {
            connection: "analytics".into(),
            name: "reader".into(),
            member_of: vec![format!("reader_{tag}")],
            owner_role: format!("owner_{tag}"),
            default_ttl_s: 600,
            max_ttl_s: ROLE_S,
            ..Default::default()
        };
        let mut client = DatabaseServiceClient::new(self.admin.clone());
        client.put_connection(connection).await.unwrap();
        client.put_role(role).await.unwrap();
        let role = PutCertificateRoleRequest {
            name: "etl".into(),
            allowed_dns: vec!["etl.test".into()],
            default_ttl_s: 600,
            max_ttl_s: ROLE_S,
            ..Default::default()
        };
        PkiServiceClient::new(self.admin.clone()).put_role(role).await.unwrap();
        let mut client = GrantServiceClient::new(self.admin.clone());
        for (action, resource) in
            [("pki.sign", "pki/etl"), ("database.credentials", "database/analytics/reader")]
        {
            let etl = strongroom::proto::add_grant_request::Subject::Identity("etl".into());
            let grant = AddGrantRequest {
                subject: Some(etl),
                action: action.into(),
                resource: resource.into(),
                ttl_s: GRANT_S,
                ..Default::default()
            };
            let made: Grant = client.add_grant(grant).await.unwrap().into_inner().grant.unwrap();
            // The later of both.
            self.leased.grant_ends_ms = made.expires_at_ms;
        }
    }

    /// Looks at a token that was just made: it lives no longer than its kind may at once.
    pub(super) async fn made(&self, bearer: &Bearing) -> Token {
        let token = calm(async || inspect(bearer, "").await).await.unwrap();
        let lives_ms = token.expires_at_ms - token.created_at_ms;
        assert!(lives_ms <= MOST_TTL_S * 1_000, "{token:?}");
        token
    }

    fn granted(&self) -> bool {
        self.leased.grant_ends_ms - self.now_ms() > BLUR_MS
    }

    fn holder(&self) -> Option<Channel> {
        self.etl.get(self.turn % self.nodes.len()).cloned()
    }

    /// Asks for a certificate.
    async fn sign(&self, etl: Channel, ttl_s: i64) {
        let client = PkiServiceClient::new(etl);
        let request = SignCertificateRequest {
            role: "etl".into(),
            csr_pem: csr().1,
            names: Some(SubjectNames { dns: vec!["etl.test".into()], ..Default::default() }),
            ttl_s,
            ..Default::default()
        };
        let signed = calm(async || client.clone().sign_certificate(request.clone()).await).await;
        match signed {
            Ok(_) => {
                assert!(self.leased.grant_ends_ms > self.now_ms() - BLUR_MS, "the grant is over");
                assert!((60..=MOST_TTL_S).contains(&ttl_s), "its kind may not");
            }
            Err(refusal) if refusal.code() == Code::InvalidArgument => {
                let fits = (60..=MOST_TTL_S).contains(&ttl_s);
                assert!(!fits || !self.granted(), "{ttl_s}: {refusal}");
            }
            Err(refusal) => assert!(!self.granted() || !self.holder_acts(), "{refusal}"),
        }
    }

    /// Asks for a credential of the database, and for a certificate as long.
    pub(super) async fn lease(&mut self, ttl_s: i64) {
        let Some(etl) = self.holder().filter(|_| self.leased.known.len() < MOST) else { return };
        self.sign(etl.clone(), ttl_s).await;
        let client = DatabaseServiceClient::new(etl);
        let request = IssueCredentialsRequest { ttl_s, ..ask() };
        let issued = calm(async || client.clone().issue_credentials(request.clone()).await).await;
        match issued {
            Ok(issued) => {
                assert!(self.leased.grant_ends_ms > self.now_ms() - BLUR_MS, "the grant is over");
                assert!(ttl_s <= MOST_TTL_S, "its kind may not");
                let id = issued.into_inner().lease_id;
                let found = self.leases().await.into_iter().find(|lease| lease.id == id);
                self.leased.known.push(found.unwrap());
            }
            Err(refusal) if refusal.code() == Code::InvalidArgument => {
                assert!(ttl_s > MOST_TTL_S || !self.granted(), "{ttl_s}: {refusal}");
            }
            Err(refusal) => assert!(!self.granted() || !self.holder_acts(), "{refusal}"),
        }
    }

    /// Renews one of the leases.
    pub(super) async fn renew_lease(&mut self, of: usize, ttl_s: i64) {
        let Some(of) = of.checked_rem(self.leased.known.len()) else { return };
        let Some(etl) = self.holder() else { return };
        let before = self.leased.known[of].clone();
        let client = LeaseServiceClient::new(etl);
        let request = RenewLeaseRequest { id: before.id.clone(), ttl_s };
        let renewed = calm(async || client.clone().renew_lease(request.clone()).await).await;
        // A dead one is refused in one way or another; what it may become is what counts.
        let Ok(renewed) = renewed else { return };
        let lease = renewed.into_inner().lease.unwrap();
        let most_ms = self.now_ms() + ttl_s.min(MOST_TTL_S) * 1_000 + BLUR_MS;
        assert!(before.expires_at_ms > self.now_ms() - BLUR_MS, "it was over: {before:?}");
        assert!(lease.expires_at_ms >= before.expires_at_ms, "renewing shortens nothing");
        assert!(lease.expires_at_ms <= most_ms.max(before.expires_at_ms), "{lease:?}");
        assert_eq!(lease.max_expires_at_ms, before.max_expires_at_ms);
        self.leased.known[of] = lease;
    }

    async fn leases(&self) -> Vec<Lease> {
        let client = LeaseServiceClient::new(self.admin.clone());
        let request = ListLeasesRequest { include_ended: true, ..Default::default() };
        let listed = calm(async || client.clone().list_leases(request.clone()).await).await;
        listed.unwrap().into_inner().leases
    }

    /// Looks at every certificate: each end is within all its caps.
    async fn check_certificates(&self) {
        let client = PkiServiceClient::new(self.admin.clone());
        let request = ListCertificatesRequest { identity: "etl".into(), ..Default::default() };
        let listed = calm(async || client.clone().list_certificates(request.clone()).await).await;
        for one in listed.unwrap().into_inner().certificates {
            let once_ms = one.created_at_ms + MOST_TTL_S * 1_000;
            for cap_ms in [once_ms, self.leased.grant_ends_ms, self.ends_ms] {
                assert!(one.expires_at_ms <= cap_ms, "{cap_ms}: {one:?}");
            }
        }
    }

    /// Looks at every lease and certificate: each end is within all its caps.
    pub(super) async fn check_leases(&self) {
        self.check_certificates().await;
        for lease in self.leases().await {
            let made_ms = lease.created_at_ms;
            let caps = [
                made_ms + ROLE_S * 1_000,
                made_ms + MOST_AGE_S * 1_000,
                self.leased.grant_ends_ms,
                self.ends_ms,
            ];
            assert!(lease.expires_at_ms <= lease.max_expires_at_ms, "{lease:?}");
            for cap_ms in caps {
                assert!(lease.max_expires_at_ms <= cap_ms, "{cap_ms}: {lease:?}");
            }
        }
    }
}
