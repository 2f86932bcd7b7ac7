//! `strongroom issuer rule add …`

use std::io::IsTerminal as _;

use clap::Args;

use super::Client;
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::output::{escape, fields, note, show};
use crate::cli::session::{Session, must};
use crate::cli::span::{Span, seconds_or_default};
use crate::proto::{
    AddRuleRequest, ClaimRule, ClaimValue, RuleTemplate, add_rule_request, claim_value,
};

/// What `issuer rule add` takes.
#[derive(Debug, Clone, Args)]
pub struct AddRule {
    /// The issuer.
    issuer: String,
    /// The identity that it logs in.
    #[arg(long, value_name = "NAME", required_unless_present = "template")]
    identity: Option<String>,
    /// Names identities by claims and registers them at first login, like ci-{repository_id}.
    #[arg(long, conflicts_with = "identity", requires_all = ["owner_group", "most"])]
    template: Option<String>,
    /// The group that answers for what --template registers.
    #[arg(long, value_name = "GROUP")]
    owner_group: Option<String>,
    /// The group that it is put into.
    #[arg(long, value_name = "GROUP", default_value = "", hide_default_value = true)]
    group: String,
    /// Its kind.
    #[arg(long, default_value = "pipeline")]
    kind: String,
    /// Its tier.
    #[arg(long, default_value = "medium")]
    tier: String,
    /// How many are registered at the most.
    #[arg(long, value_name = "N")]
    most: Option<i64>,
    /// How long one lives.
    #[arg(long, value_name = "SPAN")]
    lasts: Option<Span>,
    /// A claim and the text that it has to be; repeated for one claim, one of the texts.
    #[arg(long, value_name = "CLAIM=TEXT", value_parser = text_claim)]
    claim: Vec<(String, ClaimValue)>,
    /// The same for a whole number, true or false.
    #[arg(long, value_name = "CLAIM=JSON", value_parser = json_claim)]
    claim_json: Vec<(String, ClaimValue)>,
    /// How long a session lives where nobody asks for less; 15m where it is left out.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// How long it lives at the most; 1h where it is left out.
    #[arg(long, value_name = "SPAN")]
    max_ttl: Option<Span>,
    /// Only say what the rule would be.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Add it without asking.
    #[arg(long)]
    yes: bool,
}

/// Splits `CLAIM=VALUE`.
fn split(text: &str) -> Result<(&str, &str), String> {
    text.split_once('=')
        .filter(|(claim, _)| !claim.is_empty())
        .ok_or("a claim is CLAIM=VALUE".into())
}

fn text_claim(text: &str) -> Result<(String, ClaimValue), String> {
    let (claim, value) = split(text)?;
    let value = Some(claim_value::Value::Text(value.to_owned()));
    Ok((claim.to_owned(), ClaimValue { value }))
}

fn json_claim(text: &str) -> Result<(String, ClaimValue), String> {
    let (claim, value) = split(text)?;
    let value = match value {
        "true" => claim_value::Value::Flag(true),
        "false" => claim_value::Value::Flag(false),
        number => {
            let number =
                number.parse().map_err(|_malformed| "it is no whole number, true or false")?;
            claim_value::Value::Number(number)
        }
    };
    Ok((claim.to_owned(), ClaimValue { value: Some(value) }))
}

/// Gathers the values of each claim.
fn gather(given: &[(String, ClaimValue)]) -> Vec<ClaimRule> {
    let mut claims: Vec<ClaimRule> = Vec::new();
    for (name, value) in given {
        match claims.iter_mut().find(|one| one.claim == *name) {
            Some(one) => one.values.push(value.clone()),
            None => claims.push(ClaimRule { claim: name.clone(), values: vec![value.clone()] }),
        }
    }
    claims
}

fn rule(args: &AddRule) -> AddRuleRequest {
    let yields = match (&args.identity, &args.template) {
        (Some(name), _) => add_rule_request::Yields::Identity(name.clone()),
        (None, template) => add_rule_request::Yields::Template(RuleTemplate {
            name: template.clone().unwrap_or_default(),
            kind: args.kind.clone(),
            owner_group: args.owner_group.clone().unwrap_or_default(),
            group: args.group.clone(),
            tier: args.tier.clone(),
            most: args.most.unwrap_or_default(),
            lasts_s: seconds_or_default(args.lasts),
        }),
    };
    let given: Vec<_> = args.claim.iter().chain(&args.claim_json).cloned().collect();
    AddRuleRequest {
        issuer: args.issuer.clone(),
        yields: Some(yields),
        claims: gather(&given),
        ttl_s: seconds_or_default(args.ttl),
        max_ttl_s: seconds_or_default(args.max_ttl),
        dry_run: false,
    }
}

/// Shows the rule as a sentence first, and adds it where that is what was meant.
pub(super) async fn add_rule(session: &Session, args: &AddRule) -> Outcome {
    let add = async |dry_run| {
        let request = AddRuleRequest { dry_run, ..rule(args) };
        let added = session
            .call_once(request, async |wire, request| Client::new(wire).add_rule(request).await)
            .await?;
        must(added.rule)
    };
    if args.dry_run || !args.yes {
        let said = add(true).await?;
        if args.dry_run {
            return show(session.format, &said, |rule| format!("{}\n", escape(&rule.sentence)));
        }
        note(&said.sentence);
        if !agreed()? {
            return Err(Failure::new(Exit::Usage, "the rule was not added"));
        }
    }
    show(session.format, &add(false).await?, |rule| {
        fields(&[("id", rule.id.clone()), ("rule", rule.sentence.clone())])
    })
}

/// Asks whether that is what was meant.
fn agreed() -> Outcome<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody is there to be asked")
            .hint("read the sentence, and repeat it with --yes"));
    }
    note("add it? type yes");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.map_err(|error| Failure::new(Exit::Unexpected, error.to_string()))?;
    Ok(answer.trim() == "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_with_their_types_and_gathered_by_name() {
        let text = |text: &str| text_claim(text).unwrap();
        let claims = gather(&[text("a=1"), text("b=x=y"), text("a=2")]);
        assert_eq!(claims.iter().map(|one| one.values.len()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(claims[1].values[0].value, Some(claim_value::Value::Text("x=y".to_owned())));
        assert_eq!(json_claim("a=1").unwrap().1.value, Some(claim_value::Value::Number(1)));
        assert_eq!(json_claim("a=true").unwrap().1.value, Some(claim_value::Value::Flag(true)));
        for bad in ["a", "=1", "a=1.5", "a=\"x\"", "a="] {
            assert!(json_claim(bad).is_err(), "{bad}");
        }
    }
}
