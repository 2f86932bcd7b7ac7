//! Life-cycle policies of `IdentityService`, decoded and encoded.

use super::fields::span;
use crate::engines::identities::{DescribedLifecycle, Lifecycle, PutLifecycle};
use crate::error::{Error, Result};
use crate::proto::{self, PutLifecycleRequest};

/// Reads a request.
pub(super) fn put(request: PutLifecycleRequest) -> Result<PutLifecycle> {
    let sent = request.lifecycle.ok_or_else(|| Error::invalid("say how they live"))?;
    let needed = |what: &'static str, seconds: i64| {
        span(what, seconds)?.ok_or_else(|| Error::invalid(format!("{what} must be given")))
    };
    let lifecycle = Lifecycle {
        max_ttl: needed("max_ttl_s", sent.max_ttl_s)?,
        max_age: needed("max_age_s", sent.max_age_s)?,
        rotation: needed("rotation_s", sent.rotation_s)?,
        development_rotation: span("development_rotation_s", sent.development_rotation_s)?,
        dormant_after: span("dormant_after_s", sent.dormant_after_s)?,
        notice: span("notice_s", sent.notice_s)?.unwrap_or_default(),
        single_use: sent.single_use,
    };
    Ok(PutLifecycle { kind: sent.kind.parse()?, lifecycle })
}

/// Writes an answer.
pub(super) fn lifecycle(of: DescribedLifecycle) -> proto::Lifecycle {
    let row = of.lifecycle.row;
    proto::Lifecycle {
        kind: row.id.to_string(),
        max_ttl_s: row.max_ttl_s,
        max_age_s: row.max_age_s,
        rotation_s: row.rotation_s,
        development_rotation_s: row.development_rotation_s,
        dormant_after_s: row.dormant_after_s,
        notice_s: row.notice_s,
        single_use: row.single_use,
        changed_at_ms: row.changed_at.0,
        changed_by: of.changed_by,
    }
}
