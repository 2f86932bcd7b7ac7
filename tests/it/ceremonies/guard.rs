//! Verbs with a bug in them: none performs a ceremony but its own, and none acts without it.

use async_trait::async_trait;
use strongroom::Error;
use strongroom::engines::identities::ShredIdentity;
use strongroom::store::ceremonies::CeremonyRow;
use strongroom::store::keys::VaultRow;
use strongroom::store::{Needs, Tx};
use strongroom::types::{Caller, CeremonyId, CeremonyState, RequestContext, VaultId};
use strongroom::vault::{Decision, GOVERNS, Operation, Resource, Verb, View};

use super::*;
use crate::support::factors::{enrolled, invite_as};
use crate::support::hand::Hand;
use crate::support::logins::fingerprint;

/// What a bug does.
#[derive(Debug, Clone, Copy)]
struct Bug {
    /// The identity that it is about.
    on: &'static str,
    /// Leaves a ceremony so.
    leaves: Option<(CeremonyId, CeremonyState)>,
    /// Changes another row.
    acts: bool,
}

/// A verb that several administrators do together.
struct Solemn(Bug);

/// A verb that one does.
struct Plain(Bug);

impl Bug {
    async fn commit(self, tx: &mut Tx, vault: VaultId) -> strongroom::Result<()> {
        if let Some((id, state)) = self.leaves {
            let read = tx.lookup::<CeremonyRow>(&id).await?.unwrap();
            tx.update(read.version, &CeremonyRow { state, ..read.row }).await?;
        }
        if self.acts {
            let read = tx.lookup::<VaultRow>(&vault).await?.unwrap();
            tx.update(read.version, &read.row).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Verb for Solemn {
    const ACTION: &'static str = "identities.shred";
    type Prepared = VaultId;
    type Output = ();

    async fn resources(&self, view: &View) -> strongroom::Result<Vec<Resource>> {
        let (name, reason) = (self.0.on.parse()?, String::new());
        ShredIdentity { name, confirm: String::new(), reason }.resources(view).await
    }

    async fn prepare(&self, view: &View, _: &Decision) -> strongroom::Result<VaultId> {
        Ok(view.vault_id())
    }
}

#[async_trait]
impl Operation for Solemn {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        vault: &VaultId,
        _: &Decision,
    ) -> strongroom::Result<()> {
        self.0.commit(tx, *vault).await
    }
}

#[async_trait]
impl Verb for Plain {
    const ACTION: &'static str = "system.seal";
    type Prepared = VaultId;
    type Output = ();

    async fn resources(&self, _: &View) -> strongroom::Result<Vec<Resource>> {
        Ok(vec![Resource::named("system/seal".parse()?)])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> strongroom::Result<VaultId> {
        Ok(view.vault_id())
    }
}

#[async_trait]
impl Operation for Plain {
    const NEEDS: Needs = GOVERNS;

    async fn commit(
        &self,
        _: &RequestContext,
        tx: &mut Tx,
        vault: &VaultId,
        _: &Decision,
    ) -> strongroom::Result<()> {
        self.0.commit(tx, *vault).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_verb_performs_the_ceremony_of_another_nor_acts_while_its_own_is_open() {
    let s = Stage::new(Backend::Sqlite).await;
    enrolled(&s.f, &s.admin, &invite_as(&s.second, "admin").await).await;
    let asked = opened(&s.admin, "etl").await;
    let others = opened(&s.second, "etl").await;
    let [own, others]: [CeremonyId; 2] = [asked.id, others.id].map(|id| id.parse().unwrap());
    let vault = s.f.node().vault.clone();
    let admin = fingerprint(&s.f.admin.certificate_pem);
    let admin = vault.authenticate_certificate(admin, |_| true).await.unwrap();
    let ctx = || vault.context(Caller::Identity(admin), None).unwrap();
    let rows = async || {
        let hand = Hand::new(&s.f.parts.location);
        let sql = "SELECT row_version || ' ' || (SELECT row_version FROM vault) FROM ceremonies \
                   ORDER BY id";
        hand.ask(sql).await
    };
    let before = rows().await;
    let bug = |on, leaves, acts| Bug { on, leaves, acts };
    let (performed, open) = (CeremonyState::Performed, CeremonyState::Open);
    for (what, bug) in [
        ("without any", bug("etl", None, true)),
        ("in that of another resource", bug("second", Some((own, performed)), true)),
        ("in that of another administrator", bug("etl", Some((others, performed)), true)),
        ("in one that is denied", bug("etl", Some((own, CeremonyState::Denied)), true)),
        ("in one that is open", bug("etl", Some((own, open)), true)),
    ] {
        assert_eq!(vault.run(&ctx(), Solemn(bug)).await, Err(Error::Internal), "{what}");
        assert_eq!(rows().await, before, "{what}");
    }
    let plain = bug("", Some((own, performed)), false);
    assert_eq!(vault.run(&ctx(), Plain(plain)).await, Err(Error::Internal));
    assert_eq!(rows().await, before);
    // What takes no ceremony needs none; one may ask, and act in one's own.
    vault.run(&ctx(), Plain(bug("", None, true))).await.unwrap();
    vault.run(&ctx(), Solemn(bug("etl", Some((own, open)), false))).await.unwrap();
    vault.run(&ctx(), Solemn(bug("etl", Some((own, performed)), true))).await.unwrap();
    assert_ne!(rows().await, before);
}
