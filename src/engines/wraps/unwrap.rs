//! Opens a wrapped answer: once, by whoever it is for and says what is expected, with the handle.
//!
//! Whatever is wrong, nothing is burned, and the record has who tried. Whoever comes after it was
//! opened is told by whom, and the record has both.

use async_trait::async_trait;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use futures_util::FutureExt as _;

use super::{Wrap, as_of, missing, resource_name};
use crate::audit::Field;
use crate::engines::identities::Names;
use crate::error::{Error, Result};
use crate::store::wraps::{self, WrapRow};
use crate::store::{Needs, Tx};
use crate::types::{
    Id, IdentityName, RequestContext, ResourceName, SecretBytes, UnixMillis, WrapHandle, WrapState,
};
use crate::vault::{
    Decision, Note, Operation, Resource, Verb, View, WRITES, WrapFate, handle_of, missing_payload,
    open_wrapped,
};

/// Opens a wrapped answer.
#[derive(Debug, Clone)]
pub struct Unwrap {
    /// Its handle.
    pub handle: WrapHandle,
    /// Who is expected to have made it.
    pub creator: IdentityName,
    /// What it is expected to be of.
    pub path: ResourceName,
    /// The action that is expected to be answered; none for whichever it was.
    pub action: Option<&'static str>,
}

/// A wrap, and its answer where it may be opened.
#[derive(Debug)]
pub struct Prepared {
    wrap: Wrap,
    answer: Option<SecretBytes>,
    restore_epoch: i64,
}

/// What became of opening one.
#[derive(Debug, Clone)]
pub enum Unwrapped {
    /// It was opened now.
    Given(Box<Given>),
    /// It was opened before.
    Before(OpenedBefore),
}

/// An answer that was wrapped.
#[derive(Debug, Clone)]
pub struct Given {
    /// The wrap, opened now.
    pub wrap: Wrap,
    /// The encoded message.
    pub answer: SecretBytes,
}

/// How one was opened before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedBefore {
    /// By whom.
    pub by: IdentityName,
    /// When.
    pub at: UnixMillis,
    /// From where; empty where that is unknown.
    pub from: String,
}

impl std::fmt::Display for OpenedBefore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = if self.from.is_empty() { "an unknown address" } else { &self.from };
        write!(f, "opened before, by {} at {} from {from}", self.by, self.at)
    }
}

impl Unwrap {
    /// Finds what the handle opens. Who has not the handle itself finds nothing.
    async fn find(&self, view: &View) -> Result<Option<WrapRow>> {
        let id = self.handle.id();
        let handle = {
            let key = view.keyring().token_key()?;
            handle_of(&key, WrapHandle::TYPE, id, self.handle.secret())
        };
        let read = view.read(move |tx| async move { Ok(tx.lookup::<WrapRow>(&id).await?) }.boxed());
        let found = read.await?.map(|found| found.row);
        Ok(found.filter(|row| verify_slices_are_equal(&row.handle, &handle).is_ok()))
    }

    /// Checks that it is for whoever asks, and what they expect.
    fn expects(&self, view: &View, wrap: &Wrap) -> Result<()> {
        let asks = view.identity()?;
        if wrap.row.recipient.is_some_and(|recipient| recipient != asks) {
            return Err(Error::Denied("the wrap is for another identity".into()));
        }
        if wrap.creator != self.creator {
            return Err(Error::precondition(
                "the wrap was not made by whom you say: do not trust where the handle came from",
            ));
        }
        let meant = self.action.is_none_or(|action| wrap.row.action == action);
        if wrap.row.resource != self.path || !meant {
            return Err(Error::precondition(
                "the wrap is not of what you say: do not trust where the handle came from",
            ));
        }
        Ok(())
    }
}

#[async_trait]
impl Verb for Unwrap {
    const ACTION: &'static str = "wraps.unwrap";
    type Prepared = Prepared;
    type Output = Unwrapped;

    /// Named by who is said to have made it, so that a refusal says nothing of who did.
    async fn resources(&self, view: &View) -> Result<Vec<Resource>> {
        let mut resource = Resource::named(resource_name(&self.creator)?);
        resource.id = self.find(view).await?.map(|row| row.id.0);
        Ok(vec![resource])
    }

    async fn prepare(&self, view: &View, _: &Decision) -> Result<Prepared> {
        let unknown = || Error::not_found("the handle opens nothing of this vault");
        let id = self.find(view).await?.ok_or_else(unknown)?.id;
        let (now, restore_epoch) = as_of(view)?;
        let read = view.read(move |tx| {
            async move {
                let wrap = Wrap::load(tx, id, (now, restore_epoch)).await?;
                let payload = match wrap.fate {
                    WrapFate::Open => Some(wraps::payload(tx, id).await?),
                    WrapFate::Opened
                    | WrapFate::Revoked
                    | WrapFate::Expired
                    | WrapFate::Void(_) => None,
                };
                Ok((wrap, payload))
            }
            .boxed()
        });
        let (wrap, payload) = read.await?;
        self.expects(view, &wrap)?;
        let answer = match payload {
            Some(payload) => {
                let payload = payload.ok_or_else(|| missing_payload(id))?;
                Some(open_wrapped(view, &wrap.row, &self.handle, &payload)?)
            }
            None => None,
        };
        Ok(Prepared { wrap, answer, restore_epoch })
    }

    fn note(&self, prepared: &Prepared, note: &mut Note) {
        let row = &prepared.wrap.row;
        note.credential = Some(row.id);
        let text = format!("{} of {}, wrapped by {}", row.action, row.resource, self.creator);
        note.private.push((Field::Detail, text));
    }
}

#[async_trait]
impl Operation for Unwrap {
    const NEEDS: Needs = WRITES;

    fn outcome(&self, output: &Unwrapped) -> &'static str {
        match output {
            Unwrapped::Given(_) => "OK",
            Unwrapped::Before(_) => "OPENED",
        }
    }

    /// Where it came from the first time; where it comes from now stands beside each entry.
    fn tells(&self, output: &Unwrapped) -> Vec<(Field, String)> {
        match output {
            Unwrapped::Given(_) => Vec::new(),
            Unwrapped::Before(before) => vec![(Field::Detail, before.to_string())],
        }
    }

    /// Of several who open it, on whatever nodes, the others hear of the first.
    fn holds(&self, prepared: &Prepared) -> Option<Id> {
        Some(prepared.wrap.row.id.0)
    }

    async fn commit(
        &self,
        ctx: &RequestContext,
        tx: &mut Tx,
        prepared: &Prepared,
        decision: &Decision,
    ) -> Result<Unwrapped> {
        let id = prepared.wrap.row.id;
        let found = tx.lookup::<WrapRow>(&id).await?.ok_or_else(missing)?;
        let as_of = (ctx.now, prepared.restore_epoch);
        let now = Wrap::describe(tx, &mut Names::default(), found.row, as_of).await?;
        match now.fate {
            WrapFate::Open => {}
            WrapFate::Opened => return Ok(Unwrapped::Before(before(now)?)),
            WrapFate::Revoked => return Err(over("was taken back")),
            WrapFate::Expired => return Err(over("has expired")),
            WrapFate::Void(why) => return Err(over(&format!("is void: {why}"))),
        }
        let answer = prepared.answer.clone();
        let answer = answer.ok_or_else(|| Error::Conflict("the wrap changed; retry".into()))?;
        let nobody = || Error::internal("nobody opens a wrap");
        let by = &decision.subject.as_ref().ok_or_else(nobody)?.identity.row;
        let opened = WrapRow {
            state: WrapState::Opened,
            opened_by: Some(by.id),
            opened_at: Some(ctx.now),
            opened_from: ctx.source.map(|source| source.to_string()).unwrap_or_default(),
            changed_at: ctx.now,
            changed_by: ctx.actor(),
            ..now.row.clone()
        };
        // One compare-and-set: whoever else had read it as pending changes no row.
        let row = tx.update(found.version, &opened).await?.row;
        wraps::remove_payload(tx, id).await?;
        let (opened_by, changed_by) = (Some(by.name.clone()), by.name.to_string());
        let wrap = Wrap { row, fate: WrapFate::Opened, opened_by, changed_by, ..now };
        Ok(Unwrapped::Given(Box::new(Given { wrap, answer })))
    }
}

fn before(wrap: Wrap) -> Result<OpenedBefore> {
    let unknown = || Error::internal("a wrap that nobody opened was opened");
    let (by, at) = wrap.opened_by.zip(wrap.row.opened_at).ok_or_else(unknown)?;
    Ok(OpenedBefore { by, at, from: wrap.row.opened_from })
}

fn over(why: &str) -> Error {
    Error::precondition(format!("the wrap {why}; ask whoever made it for another"))
}
