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
    let sinks: Vec<_> = webhook.into_iter().chain(mail).map(sink).collect::<Result<_>>()?;
    if sinks.is_empty() {
        tracing::warn!(
            "neither webhook nor mail is configured: nobody is told, of emergencies either"
        );
    }
    Ok(sinks)
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
        Some((user, password)) => sink.with_login(user.clone(), password.read()?)?,
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

#[cfg(test)]
mod tests {
    use super::super::files;
    use super::*;
    use crate::config::Environment;

    fn made(more: &str) -> Result<Vec<Sink>> {
        let text = format!(
            "[vault]\ntrust_domain = \"v.example.org\"\nname = \"v\"\n[hsm]\nmodule = \"/m\"\n\
             token_label = \"t\"\n{more}"
        );
        sinks(&Config::parse(Path::new("c"), &text, &Environment::default()).unwrap())
    }

    #[test]
    fn what_is_wrong_with_a_key_a_template_or_an_authority_is_said_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let good: &[u8] = b"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n";
        for (name, mode, bytes) in
            [("good", 0o600, good), ("open", 0o644, good), ("short", 0o600, b"whsec_AAAA")]
        {
            files::write_new(&dir.path().join(name), bytes, mode).unwrap();
        }
        let dir = dir.path().display();
        let webhook = |key: &str, more: &str| {
            let file = format!("key_file = \"{dir}/{key}\"\n{more}");
            format!("[webhook]\nurl = \"https://h.example.org/in\"\n{file}\n")
        };
        let odd = "[notices]\nsubjects = { \"elevation.ended\" = \"{pin}\" }\n";
        for (more, expected) in [
            (webhook("open", ""), "webhook.key_file"),
            (webhook("gone", ""), "webhook.key_file"),
            (webhook("short", ""), "webhook.key: must be whsec_"),
            (webhook("good", &format!("ca_file = \"{dir}/gone\"")), "webhook.ca_file: cannot be"),
            (webhook("good", &format!("ca_file = \"{dir}/good\"")), "ca_file: there is no cert"),
            (odd.to_owned(), "notices.subjects: the one of elevation.ended: it has a placeholder"),
        ] {
            let error = made(&more).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("MDEy"), "{error}");
        }
        let both = webhook("good", "")
            + "[mail]\nhost = \"m.example.org\"\nfrom = \"a@b.test\"\ncopy_to = [\"c@d.test\"]\n";
        let made = made(&both).unwrap();
        let names: Vec<_> = made.iter().map(|sink| sink.name.as_str()).collect();
        assert_eq!(names, ["webhook", "mail"]);
        assert!(!format!("{made:?}").contains("0123456789abcdef"));
    }
}
