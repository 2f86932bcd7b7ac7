//! The four value types that both databases know, and how our types become them.

use crate::store::StoreError;
use crate::types::{
    CeremonyId, CeremonyState, CredentialId, CredentialKind, CredentialState, ElevationId,
    ElevationState, FactorId, FactorKind, FactorState, GrantId, GroupId, Id, IdentityId,
    IdentityName, IdentityState, InvitationState, KeyAlgorithm, KeyName, KeyOrigin, KeyPurpose,
    KeyVersionState, Kind, NamedKeyState, NoticeKind, NoticeNumber, ObjectId, Owner, Placement,
    RecoveryState, RequestId, ResourceName, ResourcePattern, Rotates, RotationState, SecretPath,
    SecretState, Segment, Tier, UnixMillis, VaultId, WrapState,
};

/// A value of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// BIGINT.
    Int(i64),
    /// TEXT.
    Text(String),
    /// BLOB or BYTEA.
    Bytes(Vec<u8>),
}

/// A row as it came from the database, taken column by column from the left.
#[derive(Debug, Clone)]
pub struct Row(std::vec::IntoIter<Value>);

impl Row {
    pub(super) fn new(values: Vec<Value>) -> Self {
        Self(values.into_iter())
    }

    /// Takes the next column.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when it is missing or not of the type asked for.
    pub fn take<C: Column>(&mut self) -> Result<C, StoreError> {
        let value = self.0.next().ok_or(StoreError::Malformed)?;
        C::from_value(value)
    }

    /// Shows what is left of the row.
    #[must_use]
    pub fn rest(&self) -> &[Value] {
        self.0.as_slice()
    }
}

/// A type that a column holds.
pub trait Column: Sized {
    /// Turns it into a value.
    fn to_value(&self) -> Value;

    /// Reads it back.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] when the database holds something else.
    fn from_value(value: Value) -> Result<Self, StoreError>;
}

impl Column for i64 {
    fn to_value(&self) -> Value {
        Value::Int(*self)
    }

    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Int(int) => Ok(int),
            Value::Null | Value::Text(_) | Value::Bytes(_) => Err(StoreError::Malformed),
        }
    }
}

impl Column for bool {
    fn to_value(&self) -> Value {
        Value::Int(i64::from(*self))
    }

    fn from_value(value: Value) -> Result<Self, StoreError> {
        match i64::from_value(value)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(StoreError::Malformed),
        }
    }
}

impl Column for String {
    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }

    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Text(text) => Ok(text),
            Value::Null | Value::Int(_) | Value::Bytes(_) => Err(StoreError::Malformed),
        }
    }
}

impl Column for Vec<u8> {
    fn to_value(&self) -> Value {
        Value::Bytes(self.clone())
    }

    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Null | Value::Int(_) | Value::Text(_) => Err(StoreError::Malformed),
        }
    }
}

impl<const N: usize> Column for [u8; N] {
    fn to_value(&self) -> Value {
        Value::Bytes(self.to_vec())
    }

    fn from_value(value: Value) -> Result<Self, StoreError> {
        Vec::from_value(value)?.try_into().map_err(|_length| StoreError::Malformed)
    }
}

impl Column for UnixMillis {
    fn to_value(&self) -> Value {
        Value::Int(self.0)
    }

    fn from_value(value: Value) -> Result<Self, StoreError> {
        i64::from_value(value).map(Self)
    }
}

impl<C: Column> Column for Option<C> {
    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, Column::to_value)
    }

    fn from_value(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Null => Ok(None),
            other @ (Value::Int(_) | Value::Text(_) | Value::Bytes(_)) => {
                C::from_value(other).map(Some)
            }
        }
    }
}

/// Columns that hold the canonical text of a type that parses.
macro_rules! text_columns {
    ($($type:ty),+ $(,)?) => {$(
        impl Column for $type {
            fn to_value(&self) -> Value {
                Value::Text(self.to_string())
            }

            fn from_value(value: Value) -> Result<Self, StoreError> {
                String::from_value(value)?.parse().map_err(|_malformed| StoreError::Malformed)
            }
        }
    )+};
}

text_columns!(
    Id,
    VaultId,
    IdentityId,
    GroupId,
    GrantId,
    CredentialId,
    ElevationId,
    CeremonyId,
    CeremonyState,
    FactorId,
    ObjectId,
    IdentityName,
    ResourceName,
    ResourcePattern,
    Segment,
    Owner,
    Kind,
    Tier,
    IdentityState,
    CredentialKind,
    CredentialState,
    FactorKind,
    FactorState,
    InvitationState,
    RecoveryState,
    ElevationState,
    NoticeKind,
    NoticeNumber,
    RequestId,
    SecretPath,
    SecretState,
    KeyName,
    KeyAlgorithm,
    Placement,
    NamedKeyState,
    KeyVersionState,
    WrapState,
    KeyOrigin,
    KeyPurpose,
    Rotates,
    RotationState,
);

/// Makes the parameters of a statement.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::Column::to_value(&$value)),*] };
}
