//! The one place where an error becomes a gRPC status.

use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};

use crate::error::{Error, StepUp};
use crate::proto::{ErrorInfo, RpcStatus};
use crate::types::RequestId;

/// Maps an error, with its machine-readable reason and the request's id.
pub(super) fn status(error: &Error, request: Option<RequestId>) -> Status {
    let code = code(error);
    let message = error.to_string();
    let info = ErrorInfo {
        reason: error.reason().to_owned(),
        domain: ErrorInfo::DOMAIN.to_owned(),
        metadata: metadata(error, request),
    };
    let details = RpcStatus {
        code: code as i32,
        message: message.clone(),
        details: vec![Any {
            type_url: ErrorInfo::TYPE_URL.to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    Status::with_details(code, message, details.encode_to_vec().into())
}

fn metadata(error: &Error, request: Option<RequestId>) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::new();
    metadata.extend(request.map(|id| (ErrorInfo::REQUEST_ID.to_owned(), id.to_string())));
    if let Error::StepUp(StepUp { kinds, within_s }) = error {
        metadata.insert(ErrorInfo::FACTORS.to_owned(), kinds.join(","));
        metadata.insert(ErrorInfo::WITHIN_S.to_owned(), within_s.to_string());
    }
    metadata
}

const fn code(error: &Error) -> Code {
    match error {
        Error::Invalid(_) => Code::InvalidArgument,
        Error::Unauthenticated(_) | Error::Spent(_) => Code::Unauthenticated,
        Error::Denied(_) | Error::Tampered { .. } | Error::TamperedRow(_) => Code::PermissionDenied,
        Error::NotFound(_) => Code::NotFound,
        Error::AlreadyExists(_) => Code::AlreadyExists,
        Error::Conflict(_) => Code::Aborted,
        Error::Precondition(_) | Error::StepUp(_) | Error::Opened(_) | Error::Ceremony(_) => {
            Code::FailedPrecondition
        }
        Error::Exhausted(_) => Code::ResourceExhausted,
        Error::Unavailable(_) | Error::Sealed | Error::OutcomeUnknown => Code::Unavailable,
        Error::Deadline => Code::DeadlineExceeded,
        Error::Internal => Code::Internal,
    }
}
