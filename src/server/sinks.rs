//! From the configuration to the sinks of notices: keys, passwords and authorities are read here,
//! once, so that what is wrong with them is said at the start.

use std::path::Path;

use crate::config::{Config, Mail, MailTls, Webhook};
use crate::engines::notices::{
    Channel, MailRoute, MailSecurity, MailSink, Roots, Sink, Templates, WebhookKey, WebhookSink,
    Wire,
};
use crate::error::{Error, Result};

/// Largest file of certificates that is read, in bytes.
const CA_BYTES: u64 = 1 << 20;

/// Makes the sinks.
///
/// # Errors
/// [`Error::Precondition`] with what is wrong with a template, a key, a password or a file.
pub(super) fn sinks(config: &Config) -> Result<Vec<Sink>> {
    let notices = &config.notices;
    let templates = Templates::new(&notices.subjects, &notices.texts)?;
    let webhook = config.webhook.as_ref().map(|it| Ok(("webhook", webhook(it)?)));
    let mail = config.mail.as_ref().map(|it| Ok(("mail", mail(it)?)));
    let sink = |made: Result<(&str, Channel)>| {
        let (name, channel) = made?;
        let (name, templates) = (name.parse()?, templates.clone());
        Ok(Sink { name, channel, templates, give_up_after: notices.give_up_after })
    };
    webhook.into_iter().chain(mail).map(sink).collect()
}

fn webhook(webhook: &Webhook) -> Result<Channel> {
    let url = &webhook.url;
    let missing = || Error::internal("a receiver without host or port");
    let host = url.host_str().ok_or_else(missing)?;
    let port = url.port_or_known_default().ok_or_else(missing)?;
    let roots = roots("webhook", webhook.ca_file.as_deref())?;
    let wire = Wire::new(host, port, webhook.private_address, &roots)?;
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let key = WebhookKey::parse(&webhook.key.read()?)?;
    Ok(Channel::Webhook(WebhookSink::new(wire, url.scheme() == "https", path, key)))
}

/// A mail server usually stands in a private network; the operator names it.
fn mail(mail: &Mail) -> Result<Channel> {
    let wire = Wire::new(&mail.host, mail.port, true, &roots("mail", mail.ca_file.as_deref())?)?;
    let security = match mail.tls {
        MailTls::Implicit => MailSecurity::Implicit,
        MailTls::StartTls => MailSecurity::StartTls,
        MailTls::Off => MailSecurity::Off,
    };
    let route = MailRoute {
        from: mail.from.clone(),
        copy_to: mail.copy_to.clone(),
        domain: mail.domain.clone(),
        people: mail.people.clone(),
        groups: mail.groups.clone(),
    };
    let sink = MailSink::new(wire, security, route);
    Ok(Channel::Mail(match &mail.login {
        Some((user, password)) => sink.with_login(user.clone(), password.read()?),
        None => sink,
    }))
}

fn roots(section: &str, file: Option<&Path>) -> Result<Roots> {
    let Some(file) = file else { return Ok(Roots::Public) };
    let unfit = |what: &str| Error::precondition(format!("{section}.ca_file: {what}"));
    let length = std::fs::metadata(file).map_err(|e| unfit(&format!("cannot be read ({e})")))?;
    if length.len() > CA_BYTES {
        return Err(unfit("is longer than 1 MiB"));
    }
    let pem = std::fs::read(file).map_err(|e| unfit(&format!("cannot be read ({e})")))?;
    Ok(Roots::Own(pem))
}
