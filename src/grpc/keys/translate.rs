//! Between messages of `KeyService` and what the engine knows.

use crate::engines::keys::{
    Fault, KeyDetail, KeySpec, Keys, Schedule, ShownKey, ShownKeyVersion, ShownUsage, ShownUse,
    SignArtifact, UpdateKey, Used,
};
use crate::engines::pki::public_pem;
use crate::error::{Error, Result};
use crate::grpc::fields::{ms, optional, retry, span};
use crate::proto::{
    CreateKeyRequest, GetKeyResponse, ItemFault, KeyLastUse, KeyUsage, NamedKey, NamedKeyVersion,
    SignArtifactRequest, UpdateKeyRequest, UsedKey,
};
use crate::types::KeyPurpose;

/// Reads a number of bytes; none where it is 0.
pub(super) fn item_count(what: &'static str, count: i32) -> Result<Option<usize>> {
    match usize::try_from(count) {
        Ok(0) => Ok(None),
        Ok(count) => Ok(Some(count)),
        Err(_negative) => Err(Error::invalid(format!("{what} must not be negative"))),
    }
}

pub(super) fn create(request: &CreateKeyRequest) -> Result<KeySpec> {
    let algorithm = request.algorithm.parse()?;
    Ok(KeySpec {
        name: request.name.parse()?,
        algorithm,
        placement: KeySpec::placement(algorithm, optional(&request.placement)?, request.import)?,
        owner: optional(&request.owner)?,
        purpose: optional(&request.purpose)?.unwrap_or(KeyPurpose::Any),
        import: request.import,
        may_back_up: request.may_back_up,
        rotate_every: span("rotate_every_s", request.rotate_every_s)?,
        labels: request.labels.clone(),
        retry: retry(&request.idempotency_key, request)?,
    })
}

pub(super) fn update(request: UpdateKeyRequest) -> Result<UpdateKey> {
    let schedule = match request.rotate_every_s {
        -1 => Schedule::Ends,
        every => span("rotate_every_s", every)?.map_or(Schedule::Stays, Schedule::Every),
    };
    Ok(UpdateKey {
        name: request.name.parse()?,
        revision: request.revision,
        min_version: (request.min_version != 0).then_some(request.min_version),
        state: optional(&request.state)?,
        schedule,
        set_labels: request.set_labels,
        remove_labels: request.remove_labels,
    })
}

pub(super) fn detail(key: KeyDetail) -> NamedKey {
    let state = key.shown_state().to_owned();
    let row = key.row.row;
    NamedKey {
        id: row.id.to_string(),
        name: row.name.to_string(),
        owner: key.owner.to_string(),
        algorithm: row.algorithm.to_string(),
        placement: row.placement.to_string(),
        state,
        version: row.newest,
        min_version: row.min_version,
        rotate_every_s: row.rotate_every_s.unwrap_or_default(),
        rotates_at_ms: ms(row.rotate_at),
        labels: key.labels,
        revision: key.row.version,
        created_at_ms: row.created_at.0,
        created_by: key.created_by,
        changed_at_ms: row.changed_at.0,
        changed_by: key.changed_by,
        purpose: row.purpose.to_string(),
        origin: row.origin.to_string(),
        may_back_up: row.may_back_up,
        last_use: key.last_use.map(last_use),
    }
}

fn last_use(shown: ShownUse) -> KeyLastUse {
    let ShownUse { at, by, version, purpose } = shown;
    KeyLastUse { at_ms: at.0, by, version, purpose }
}

pub(super) fn usage(shown: ShownUsage) -> KeyUsage {
    let ShownUsage { day, by, version, purpose, uses, last_at } = shown;
    KeyUsage { day_ms: day.0, by, version, purpose, uses, last_at_ms: last_at.0 }
}

pub(super) fn artifact(keys: Keys, request: SignArtifactRequest) -> Result<SignArtifact> {
    let digest = request.manifest_sha256.try_into();
    Ok(SignArtifact {
        keys,
        name: request.name.parse()?,
        manifest: request.manifest,
        digest: digest.map_err(|_length| Error::invalid("manifest_sha256 has 32 bytes"))?,
        files: request.files,
        size_bytes: request.size_bytes,
    })
}

pub(super) fn shown(shown: ShownKey) -> GetKeyResponse {
    let versions = shown.versions.into_iter().map(version).collect();
    GetKeyResponse { key: Some(detail(shown.key)), versions }
}

fn version(shown: ShownKeyVersion) -> NamedKeyVersion {
    let public = shown.row.public_key.as_deref();
    NamedKeyVersion {
        version: shown.row.version,
        state: shown.row.state.to_string(),
        reserved: shown.reserved,
        public_key_pem: public.map(public_pem).unwrap_or_default(),
        created_at_ms: shown.row.created_at.0,
        created_by: shown.created_by,
        origin: shown.row.origin.to_string(),
    }
}

pub(super) fn used(used: Used) -> UsedKey {
    UsedKey {
        id: used.id.to_string(),
        version: used.version,
        placement: used.placement.to_string(),
        algorithm: used.algorithm.to_string(),
    }
}

pub(super) fn fault(fault: Fault) -> ItemFault {
    ItemFault { reason: fault.reason.to_owned(), message: fault.message.into_owned() }
}
