//! `whoami`: an authenticated, decided and durably recorded call, beside a bare echo.

use bytes::Bytes;
use strongroom::proto::WhoAmIRequest;
use strongroom::proto::identity_service_client::IdentityServiceClient;

use crate::echo;
use crate::load::{RUN, WARM, drive};
use crate::report::{Row, row};
use crate::vault::Vault;

const CONCURRENCY: usize = 64;
/// Connections that the tasks share, on both sides.
const CONNECTIONS: usize = 8;

pub(crate) async fn measure(vault: &Vault) -> Row {
    let ours = vault.channels(CONNECTIONS).await;
    let theirs = echo::channels(CONNECTIONS).await;
    let data = Bytes::from(vec![7; 128]);
    let whoami = |channel, _| async move {
        let answer = IdentityServiceClient::new(channel).who_am_i(WhoAmIRequest {}).await.unwrap();
        assert!(answer.get_ref().administrator);
    };
    let bare = move |channel, _| echo::call(channel, data.clone());
    drive(CONCURRENCY, WARM, ours.clone(), whoami).await;
    drive(CONCURRENCY, WARM, theirs.clone(), bare.clone()).await;
    let (mut whoamis, mut echoes) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        echoes.push(drive(CONCURRENCY, RUN, theirs.clone(), bare.clone()).await);
        whoamis.push(drive(CONCURRENCY, RUN, ours.clone(), whoami).await);
    }
    row("whoami", CONCURRENCY, "bare tonic mTLS echo of 128 bytes", 0.50, whoamis, echoes)
}
