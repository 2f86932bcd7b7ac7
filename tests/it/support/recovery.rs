//! Recovering administrators as the local command does: the HSM answers for who has its PIN.

use strongroom::Result;
use strongroom::engines::system::Recovered;
use strongroom::server::{Node, RecoveryOrder};

use super::node::Fixture;

/// Asks a node of the fixture.
pub(crate) async fn recover(f: &Fixture, node: &Node, name: &str, csr: &str) -> Result<Recovered> {
    let order = order(f, node, name, csr).await?;
    node.life.recover(order).await
}

/// Proves the PIN for what is to be asked.
pub(crate) async fn order(
    f: &Fixture,
    node: &Node,
    name: &str,
    csr: &str,
) -> Result<RecoveryOrder> {
    let challenge = node.life.challenge()?;
    let name = name.parse()?;
    let statement = RecoveryOrder::statement(&name, csr);
    let proof = challenge.answer(f.hsm.as_ref(), &statement).await?;
    Ok(RecoveryOrder { name, csr_pem: csr.to_owned(), nonce: challenge.nonce.to_vec(), proof })
}
