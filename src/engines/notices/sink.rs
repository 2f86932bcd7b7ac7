//! A sink: where notices go, in which words, and for how long that is tried.

use std::time::Duration;

use super::letter::Letter;
use super::mail::MailSink;
use super::template::Templates;
use super::webhook::WebhookSink;
use crate::error::Result;
use crate::types::{Segment, UnixMillis};

/// How notices go there.
#[derive(Debug, Clone)]
pub enum Channel {
    /// Posted.
    Webhook(WebhookSink),
    /// Mailed.
    Mail(MailSink),
}

/// Where notices go.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Its name, by which the vault knows how far it is.
    pub name: Segment,
    /// How.
    pub channel: Channel,
    /// In which words.
    pub templates: Templates,
    /// After how long one that is not taken is given up.
    pub give_up_after: Duration,
}

impl Sink {
    /// Sends a notice; what there is to say about it.
    pub(super) async fn send(&self, letter: &Letter, now: UnixMillis) -> Result<String> {
        match &self.channel {
            Channel::Webhook(webhook) => webhook.send(letter, now).await.map(|()| String::new()),
            Channel::Mail(mail) => mail.send(letter).await,
        }
    }
}
