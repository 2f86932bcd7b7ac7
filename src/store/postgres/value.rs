//! Our four value types on PostgreSQL's wire.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef, Postgres};
use sqlx::{Decode, Encode, Type, TypeInfo as _, ValueRef as _};

use crate::store::Value;

impl Type<Postgres> for Value {
    fn type_info() -> PgTypeInfo {
        unspecified()
    }

    fn compatible(_: &PgTypeInfo) -> bool {
        true
    }
}

/// Type 0 in a Parse message: the server infers the type of the parameter.
fn unspecified() -> PgTypeInfo {
    PgTypeInfo::with_oid(Oid(0))
}

impl Encode<'_, Postgres> for Value {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(int) => <i64 as Encode<Postgres>>::encode_by_ref(int, buffer),
            Self::Text(text) => <String as Encode<Postgres>>::encode_by_ref(text, buffer),
            Self::Bytes(bytes) => <Vec<u8> as Encode<Postgres>>::encode_by_ref(bytes, buffer),
        }
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(match self {
            Self::Null => unspecified(),
            Self::Int(_) => <i64 as Type<Postgres>>::type_info(),
            Self::Text(_) => <String as Type<Postgres>>::type_info(),
            Self::Bytes(_) => <Vec<u8> as Type<Postgres>>::type_info(),
        })
    }
}

impl<'r> Decode<'r, Postgres> for Value {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        if value.is_null() {
            return Ok(Self::Null);
        }
        let name = value.type_info().name().to_owned();
        match name.as_str() {
            "INT8" => <i64 as Decode<Postgres>>::decode(value).map(Self::Int),
            "INT4" => <i32 as Decode<Postgres>>::decode(value).map(|int| Self::Int(int.into())),
            "TEXT" | "VARCHAR" | "NAME" => {
                <String as Decode<Postgres>>::decode(value).map(Self::Text)
            }
            "BYTEA" => <Vec<u8> as Decode<Postgres>>::decode(value).map(Self::Bytes),
            other => Err(format!("column of type {other}").into()),
        }
    }
}
