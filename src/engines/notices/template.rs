//! How notices are worded: text with named placeholders from a fixed list, checked at the start.
//!
//! What people wrote (reasons, names, reviews) is put in cleaned: on one line, without characters
//! that move or hide what stands around them, and not longer than a bound. So nobody writes a header
//! or another notice into a notice.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::types::NoticeKind;

/// What may stand in braces besides the facts.
const OWN: [&str; 3] = ["kind", "vault", "at"];
/// Characters of a value, of a subject and of a text at most, and items of a list.
const VALUE: usize = 1_024;
const SUBJECT: usize = 200;
const TEXT: usize = 16_384;
const ITEMS: usize = 32;

/// The text that is built in. A line all of whose placeholders are empty is left out.
const USUAL_TEXT: &str = "\
{kind} in {vault}
at {at}, by {by}

Who asked:     {requester}
Role:          {role}
Resources:     {resources}
Actions:       {actions}
Reason:        {reason}
Ticket:        {ticket}
State:         {state}
Why:           {why}
Step:          {step}
Approved by:   {approved_by}
Denied by:     {denied_by}
Begins:        {starts_at}
In force from: {activated_at}
Ends:          {ends_at}
Review due:    {review_due}
Review:        {verdict} {review}
Details:       {detail}

strongroom elevate show {elevation}
strongroom ceremony show {ceremony}
";

/// The subject that is built in for a kind.
const fn usual_subject(kind: NoticeKind) -> &'static str {
    match kind {
        NoticeKind::Requested => "[{vault}] {requester} asks for {role}: your approval is wanted",
        NoticeKind::StepApproved => {
            "[{vault}] {role} for {requester}: the next step is to be approved"
        }
        NoticeKind::Approved => "[{vault}] {role} for {requester} is approved",
        NoticeKind::Denied => "[{vault}] {role} for {requester} is denied",
        NoticeKind::Withdrawn => "[{vault}] {requester} took the request for {role} back",
        NoticeKind::Expired => "[{vault}] {role} for {requester} expired",
        NoticeKind::Activated => "[{vault}] {requester} has {role} until {ends_at}",
        NoticeKind::ActivationFailed => "[{vault}] {role} for {requester} could not be activated",
        NoticeKind::Prolonged => "[{vault}] {requester} has {role} until {ends_at}, prolonged",
        NoticeKind::Ended => "[{vault}] {role} for {requester} is over",
        NoticeKind::Revoked => "[{vault}] {role} for {requester} is revoked",
        NoticeKind::StandingMade => "[{vault}] {requester} made something that stays: {detail}",
        NoticeKind::EmergencyRequested => {
            "[{vault}] EMERGENCY: {requester} is about to take {role}"
        }
        NoticeKind::EmergencyActivated => {
            "[{vault}] EMERGENCY: {requester} has {role} until {ends_at}"
        }
        NoticeKind::ReviewOverdue => "[{vault}] OVERDUE: the review of {role} for {requester}",
        NoticeKind::Reviewed => "[{vault}] {role} for {requester} was reviewed: {verdict}",
        NoticeKind::RoleCreated => "[{vault}] new elevation role {role}, by {by}",
        NoticeKind::RoleProposed => "[{vault}] {by} wants elevation role {role} changed",
        NoticeKind::RoleConfirmed => "[{vault}] {by} confirmed a change of elevation role {role}",
        NoticeKind::RoleChanged => "[{vault}] elevation role {role} is changed",
        NoticeKind::RoleDropped => "[{vault}] a change of elevation role {role} is dropped: {why}",
        NoticeKind::CeremonyOpened => {
            "[{vault}] {requester} asks for {actions} on {resources}: your approval is wanted"
        }
        NoticeKind::CeremonyApproved => {
            "[{vault}] {by} approved {actions} on {resources} for {requester}"
        }
        NoticeKind::CeremonyDenied => {
            "[{vault}] {by} denied {actions} on {resources} for {requester}"
        }
        NoticeKind::CeremonyCancelled => {
            "[{vault}] {requester} took the request for {actions} on {resources} back"
        }
        NoticeKind::CeremonyPerformed => "[{vault}] {requester} did {actions} on {resources}",
        NoticeKind::CeremonyExpired => {
            "[{vault}] {actions} on {resources} for {requester} waited too long"
        }
        NoticeKind::EnrolmentLocked => "[{vault}] an enrolment of {requester} is locked: {why}",
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(String),
}

/// A text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template(Vec<Part>);

impl Template {
    /// Reads `… {name} …`; a doubled brace stands for itself.
    fn parse(text: &str, known: &dyn Fn(&str) -> bool) -> Result<Self> {
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '{' | '}' if rest.next_if_eq(&c).is_some() => plain.push(c),
                '{' => {
                    let mut closed = false;
                    let inside = |c: &char| {
                        closed = *c == '}';
                        !closed
                    };
                    let name: String = rest.by_ref().take_while(inside).collect();
                    if !closed || !known(&name) {
                        return Err(Error::invalid("it has a placeholder that there is not"));
                    }
                    parts.extend([Part::Text(std::mem::take(&mut plain)), Part::Value(name)]);
                }
                '}' => return Err(Error::invalid("it has a brace that nothing opened")),
                '\n' => plain.push(c),
                c if c.is_control() => {
                    return Err(Error::invalid("it has a character that is not seen"));
                }
                c => plain.push(c),
            }
        }
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    fn fill(&self, values: &BTreeMap<String, String>) -> String {
        let fill = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(name) => values.get(name).cloned().unwrap_or_default(),
        };
        self.0.iter().map(fill).collect()
    }

    fn is_vain(&self, values: &BTreeMap<String, String>) -> bool {
        let mut named = self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Value(name) => Some(values.get(name).is_none_or(String::is_empty)),
        });
        let first = named.next();
        first == Some(true) && named.all(|empty| empty)
    }
}

/// How each kind of notice is worded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    all: Vec<(NoticeKind, Template, Vec<Template>)>,
}

impl Templates {
    /// Takes subjects and texts in place of those that are built in.
    ///
    /// # Errors
    /// [`Error::Precondition`] for a kind or a placeholder that there is not.
    pub fn new(
        subjects: &BTreeMap<String, String>,
        texts: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let known = placeholders()?;
        let known = |name: &str| known.iter().any(|one| one == name);
        for (key, given) in [("subjects", subjects), ("texts", texts)] {
            let odd = given.keys().find(|kind| kind.parse::<NoticeKind>().is_err());
            if odd.is_some() {
                return Err(Error::precondition(format!(
                    "notices.{key}: has a kind of notice that there is not; docs/notices.md lists them"
                )));
            }
        }
        let parse = |key: &str, kind: NoticeKind, text: &str| {
            Template::parse(text, &known).map_err(|fault| {
                Error::precondition(format!("notices.{key}: the one of {kind}: {fault}"))
            })
        };
        let mut all = Vec::new();
        for kind in NoticeKind::ALL {
            let own = |given: &BTreeMap<String, String>| given.get(kind.as_str()).cloned();
            let subject = own(subjects).unwrap_or_else(|| usual_subject(*kind).to_owned());
            let text = own(texts).unwrap_or_else(|| USUAL_TEXT.to_owned());
            let subject = parse("subjects", *kind, &subject)?;
            let lines = text.lines().map(|line| parse("texts", *kind, line));
            all.push((*kind, subject, lines.collect::<Result<_>>()?));
        }
        Ok(Self { all })
    }

    /// Words a notice: its subject, on one line, and its text.
    ///
    /// # Errors
    /// [`Error::Internal`], which this type excludes.
    pub(super) fn word(
        &self,
        kind: NoticeKind,
        vault: &str,
        at: &str,
        facts: &Map<String, Value>,
    ) -> Result<(String, String)> {
        let mut values: BTreeMap<_, _> =
            facts.iter().map(|(name, value)| (name.clone(), shown(value))).collect();
        for (name, value) in OWN.iter().zip([kind.as_str(), vault, at]) {
            values.insert((*name).to_owned(), clean(value, VALUE));
        }
        let found = self.all.iter().find(|(of, _, _)| *of == kind);
        let (_, subject, lines) = found.ok_or_else(|| Error::internal("a kind without words"))?;
        let said = lines.iter().filter(|line| !line.is_vain(&values));
        let text: Vec<_> = said.map(|line| line.fill(&values)).collect();
        let text = text.join("\n").chars().take(TEXT).collect::<String>();
        Ok((clean(&subject.fill(&values), SUBJECT), text.trim_end().to_owned() + "\n"))
    }
}

/// What may stand in braces.
fn placeholders() -> Result<Vec<String>> {
    let facts = serde_json::to_value(crate::vault::NoticeFacts::default());
    let facts = facts.map_err(Error::internal)?;
    let names = facts.as_object().into_iter().flat_map(|facts| facts.keys().cloned());
    Ok(names.chain(OWN.iter().map(|name| (*name).to_owned())).collect())
}

/// Shows a fact on one line.
fn shown(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(false) | Value::Object(_) => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => clean(text, VALUE),
        Value::Array(items) => {
            let mut texts: Vec<_> = items.iter().take(ITEMS).map(shown).collect();
            if items.len() > ITEMS {
                texts.push(format!("and {} more", items.len().saturating_sub(ITEMS)));
            }
            clean(&texts.join(", "), VALUE)
        }
    }
}

/// Puts text on one line: what moves or hides becomes a space, what is too long is cut.
fn clean(text: &str, most: usize) -> String {
    let unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}')
    };
    let seen = text.chars().map(|c| if unseen(c) { ' ' } else { c });
    let mut cut: String = seen.take(most).collect();
    if text.chars().nth(most).is_some() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::NoticeFacts;

    fn facts(facts: &NoticeFacts) -> Map<String, Value> {
        serde_json::to_value(facts).unwrap().as_object().unwrap().clone()
    }

    fn one(key: &str, text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), text.to_owned())])
    }

    #[test]
    fn every_kind_is_worded_and_lines_without_anything_to_say_are_left_out() {
        let templates = Templates::new(&BTreeMap::new(), &BTreeMap::new()).unwrap();
        let facts = facts(&NoticeFacts {
            role: "db-admin".to_owned(),
            requester: "carol".to_owned(),
            actions: vec!["a.b".to_owned(), "c.d".to_owned()],
            ..NoticeFacts::default()
        });
        for kind in NoticeKind::ALL {
            let (subject, text) = templates.word(*kind, "vault.test", "now", &facts).unwrap();
            let named = match kind.as_str().split_once('.') {
                Some(("ceremony", _)) => "a.b, c.d",
                Some(("enrolment", _)) => "carol",
                _ if *kind == NoticeKind::StandingMade => "carol",
                _ => "db-admin",
            };
            assert!(subject.starts_with("[vault.test] ") && subject.contains(named), "{subject}");
            assert!(text.contains("Actions:       a.b, c.d\n"), "{text}");
            assert!(!text.contains("Ticket") && !text.contains('{'), "{text}");
            assert!(!text.contains("strongroom elevate") && !text.contains("ceremony show"));
        }
    }

    #[test]
    fn what_people_wrote_stays_on_its_line_and_is_no_template() {
        let (subjects, texts) = (
            one("elevation.requested", "{{{reason}}}"),
            one("elevation.requested", "before\n{reason}\nafter"),
        );
        let templates = Templates::new(&subjects, &texts).unwrap();
        let reason = "x\r\nBcc: all@example.org\u{2028}\u{e0041}{role}\u{61c}".to_owned()
            + &"y".repeat(2_000);
        let facts = facts(&NoticeFacts { reason, role: "r".to_owned(), ..NoticeFacts::default() });
        let (subject, text) = templates.word(NoticeKind::Requested, "v", "t", &facts).unwrap();
        assert!(subject.starts_with("{x  Bcc: all@example.org  {role} y"), "{subject}");
        assert!(subject.chars().count() <= SUBJECT + 1 && !subject.chars().any(char::is_control));
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= VALUE + 1));
    }

    #[test]
    fn a_placeholder_or_a_kind_that_there_is_not_is_refused() {
        for bad in ["{secret}", "{", "{}", "}", "{reason", "{Reason}", "{ reason }", "a\u{1b}b"] {
            let refused = Templates::new(&one("elevation.requested", bad), &BTreeMap::new());
            assert!(matches!(refused, Err(Error::Precondition(_))), "{bad:?}");
            let refused = Templates::new(&BTreeMap::new(), &one("elevation.ended", bad));
            assert!(matches!(refused, Err(Error::Precondition(_))), "{bad:?}");
        }
        let refused = Templates::new(&one("elevation.wished", "x"), &BTreeMap::new());
        assert!(matches!(refused, Err(Error::Precondition(_))));
    }
}
