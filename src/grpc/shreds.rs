//! Shredding of `IdentityService`, encoded.

use super::fields::ms;
use crate::engines::identities::{Losses, Reader, Shred, Shredding};
use crate::proto::{self, GetShreddingResponse, ShredLosses, ShredReader};

/// Writes that an identity was shredded.
pub(super) fn shred(shred: Shred) -> proto::Shred {
    let row = shred.row;
    proto::Shred {
        identity_id: row.id.to_string(),
        identity: shred.identity,
        key_versions: row.key_versions,
        secrets: row.secrets,
        named_keys: row.named_keys,
        hsm_keys: row.hsm_keys,
        hsm_keys_left: shred.ending,
        connections: row.connections,
        shredded_at_ms: row.shredded_at.0,
        shredded_by: shred.shredded_by,
        openers: shred.openers,
        unrecoverable_at_ms: ms(row.unrecoverable_at),
    }
}

fn reader(Reader { subject, action, resource }: Reader) -> ShredReader {
    ShredReader { subject, action, resource }
}

/// Writes what shredding would take, or has taken.
pub(super) fn shredding(it: Shredding) -> GetShreddingResponse {
    let Losses { key_versions, secrets, secret_versions, named_keys, hsm_keys, connections } =
        it.losses;
    let values = secret_versions;
    let losses = ShredLosses { key_versions, secrets, values, named_keys, hsm_keys, connections };
    GetShreddingResponse {
        shred: it.shred.map(shred),
        losses: Some(losses),
        readers: it.readers.into_iter().map(reader).collect(),
        obstacle: it.obstacle,
        partial: it.partial,
    }
}
