//! Answers that are wrapped: one way for every call whose answer holds a secret.
//!
//! The message is made once, as it would be sent, and stored; what is sent is the same without its
//! secrets. A call that does not come this way and asks for a wrap is refused by the gate.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tonic::{Response, Status};

use super::accept::Gate;
use crate::error::{Error, Result};
use crate::proto::{self, WRAP_FOR, WRAP_TTL, Wrappable};
use crate::types::{RequestContext, SecretBytes};
use crate::vault::{EffectOperation, Encode, Operation, WrapOrder, Wrapped, Wrapping};

/// Reads how an answer is to be wrapped; none where the request asks for no wrap.
pub(super) fn order(headers: &HeaderMap) -> Result<Option<WrapOrder>> {
    let (ttl, recipient) = (lookup(headers, WRAP_TTL)?, lookup(headers, WRAP_FOR)?);
    let ttl = match (ttl, recipient) {
        (None, None) => return Ok(None),
        (None, Some(_)) => WrapOrder::USUAL,
        (Some(text), _) => seconds(text)?,
    };
    WrapOrder::new(ttl, recipient.map(str::parse).transpose()?).map(Some)
}

/// Refuses a request that asks for a wrap.
pub(super) fn refuse(headers: &HeaderMap) -> Result<()> {
    if headers.contains_key(WRAP_TTL) || headers.contains_key(WRAP_FOR) {
        return Err(Error::invalid(
            "what this call answers is not wrapped: it holds no secret, or is for the caller alone",
        ));
    }
    Ok(())
}

fn lookup<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value
            .to_str()
            .map(Some)
            .map_err(|_binary| Error::invalid(format!("{name} is visible ASCII"))),
        (Some(_), Some(_)) => Err(Error::invalid(format!("{name} stands twice"))),
    }
}

fn seconds(text: &str) -> Result<Duration> {
    let digits = text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = digits.then(|| text.parse().ok()).flatten();
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| Error::invalid(format!("{WRAP_TTL} is a number of seconds")))
}

impl Gate {
    /// Runs a verb whose answer holds a secret, and answers it as it is asked for.
    pub(super) async fn give<O, M>(
        &self,
        ctx: &RequestContext,
        op: O,
        order: Option<WrapOrder>,
        show: impl Fn(&O::Output) -> Result<M> + Send + Sync + 'static,
    ) -> Result<Response<M>, Status>
    where
        O: Operation,
        M: Wrappable,
    {
        let Some(order) = order else {
            let output = Self::answer(ctx, self.vault.run(ctx, op).await)?;
            return Self::answer(ctx, show(&output)).map(Response::new);
        };
        let show = Arc::new(show);
        let op = Wrapping::new(op, order, M::MESSAGE, encoder(&show));
        let (output, wrapped) = Self::answer(ctx, self.vault.run(ctx, op).await)?;
        Self::answer(ctx, withheld(show(&output), wrapped)).map(Response::new)
    }

    /// The same for a verb that changes something outside.
    pub(super) async fn give_effect<O, M>(
        &self,
        ctx: &RequestContext,
        op: O,
        order: Option<WrapOrder>,
        show: impl Fn(&O::Output) -> Result<M> + Send + Sync + 'static,
    ) -> Result<Response<M>, Status>
    where
        O: EffectOperation,
        M: Wrappable,
    {
        let Some(order) = order else {
            let output = Self::answer(ctx, self.vault.run_effect(ctx, op).await)?;
            return Self::answer(ctx, show(&output)).map(Response::new);
        };
        let show = Arc::new(show);
        let op = Wrapping::new(op, order, M::MESSAGE, encoder(&show));
        let (output, wrapped) = Self::answer(ctx, self.vault.run_effect(ctx, op).await)?;
        Self::answer(ctx, withheld(show(&output), wrapped)).map(Response::new)
    }
}

/// Writes an answer as it would be sent.
fn encoder<T, M, F>(show: &Arc<F>) -> Encode<T>
where
    T: 'static,
    M: Wrappable,
    F: Fn(&T) -> Result<M> + Send + Sync + 'static,
{
    let show = Arc::clone(show);
    Arc::new(move |output: &T| Ok(SecretBytes::new(show(output)?.encode_to_vec())))
}

/// Takes what was wrapped out of the answer.
fn withheld<M: Wrappable>(shown: Result<M>, wrapped: Option<Wrapped>) -> Result<M> {
    let mut shown = shown?;
    shown.withhold(wrapped.map(show_wrapped).transpose()?);
    Ok(shown)
}

fn show_wrapped(wrapped: Wrapped) -> Result<proto::Wrapped> {
    let Wrapped { accessor, handle, creator, recipient, action, resource, expires_at } = wrapped;
    Ok(proto::Wrapped {
        handle: std::str::from_utf8(handle.expose()).map_err(Error::internal)?.to_owned(),
        accessor: accessor.to_string(),
        creator: creator.to_string(),
        path: resource.to_string(),
        action: action.to_owned(),
        recipient: recipient.map(|name| name.to_string()).unwrap_or_default(),
        expires_at_ms: expires_at.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<Option<WrapOrder>> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        assert_eq!(refuse(&headers).is_ok(), pairs.is_empty());
        order(&headers)
    }

    #[test]
    fn an_order_is_read_exactly_or_refused() {
        assert_eq!(read(&[]), Ok(None));
        let one = |ttl, name: Option<&str>| {
            let name = name.map(|name| name.parse().unwrap());
            WrapOrder::new(Duration::from_secs(ttl), name).map(Some)
        };
        assert_eq!(read(&[(WRAP_TTL, "1")]), one(1, None));
        assert_eq!(
            read(&[(WRAP_TTL, "86400"), (WRAP_FOR, "ci/build")]),
            one(86_400, Some("ci/build"))
        );
        assert_eq!(read(&[(WRAP_FOR, "ci/build")]), one(120, Some("ci/build")));
        for bad in ["", "0", "86401", "-1", "+1", "1s", " 1", "1e3", "9999999999"] {
            assert!(matches!(read(&[(WRAP_TTL, bad)]), Err(Error::Invalid(_))), "{bad:?}");
        }
        for bad in ["", "CI", "a b", "a//b", "*"] {
            assert!(matches!(read(&[(WRAP_FOR, bad)]), Err(Error::Invalid(_))), "{bad:?}");
        }
        assert!(read(&[(WRAP_TTL, "1"), (WRAP_TTL, "2")]).is_err());
    }
}
