//! What a PKCS#11 return value means for us.
//!
//! The one place that reads return values; must not know which operation failed.

use cryptoki::error::{Error, RvError};

use crate::hsm::HsmError;

/// Maps an error of the module.
///
/// Everything that a fresh session may cure is [`HsmError::Unavailable`]: the caller then drops
/// its sessions and handles and connects again. Many modules say `CKR_GENERAL_ERROR` or a value of
/// their own when their device or network is gone, so those count too.
pub(super) fn map(error: &Error) -> HsmError {
    let Error::Pkcs11(value, function) = error else {
        return HsmError::Failed(error.to_string());
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "foreign enum of a hundred values: what is not named is a failure"
    )]
    match value {
        RvError::SessionHandleInvalid
        | RvError::SessionClosed
        | RvError::SessionCount
        | RvError::DeviceError
        | RvError::DeviceMemory
        | RvError::DeviceRemoved
        | RvError::TokenNotPresent
        | RvError::TokenNotRecognized
        | RvError::SlotIdInvalid
        | RvError::UserNotLoggedIn
        | RvError::KeyHandleInvalid
        | RvError::ObjectHandleInvalid
        | RvError::OperationActive
        | RvError::OperationNotInitialized
        | RvError::CryptokiNotInitialized
        | RvError::GeneralError
        | RvError::FunctionFailed
        | RvError::HostMemory
        | RvError::VendorDefined(_)
        | RvError::UnknownErrorCode(_) => HsmError::Unavailable(format!("{function:?}: {value:?}")),
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
            HsmError::PinIncorrect
        }
        RvError::PinLocked => {
            HsmError::Failed("the token's PIN is locked; its security officer resets it".to_owned())
        }
        RvError::UserPinNotInitialized => {
            HsmError::Configuration("the token has no user PIN yet".to_owned())
        }
        RvError::MechanismInvalid
        | RvError::FunctionNotSupported
        | RvError::CurveNotSupported
        | RvError::RandomNoRng => HsmError::Unsupported(format!("what {function:?} asked for")),
        _ => HsmError::Failed(format!("{function:?}: {value:?}")),
    }
}

/// Tells whether a template has attributes that the token does not take.
pub(super) fn is_template(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::AttributeTypeInvalid
                | RvError::AttributeValueInvalid
                | RvError::AttributeReadOnly
                | RvError::TemplateInconsistent
                | RvError::DomainParamsInvalid
                | RvError::CurveNotSupported,
            _
        )
    )
}

/// Tells whether somebody in this process is logged in already, which is success.
pub(super) fn is_logged_in_already(error: &Error) -> bool {
    matches!(error, Error::Pkcs11(RvError::UserAlreadyLoggedIn, _))
}
