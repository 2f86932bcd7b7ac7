//! `strongroom issuer …`

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use super::failure::{Exit, Failure, Outcome};
use super::files::{read_secret, read_text};
use super::identities::by;
use super::output::{Format, fields, note, show, show_list, time};
use super::session::{Session, collect, must};
use super::span::{Span, seconds_or_default};
use crate::proto::issuer_service_client::IssuerServiceClient as Client;
use crate::proto::{
    AddIssuerRequest, AddRuleRequest, ClaimRule, ClaimValue, GetIssuerRequest, Issuer, IssuerRule,
    IssuerSettings, ListIssuersRequest, ListRulesRequest, RemoveIssuerRequest, RemoveRuleRequest,
    RuleTemplate, TestTokenRequest, TestTokenResponse, UpdateIssuerRequest, add_rule_request,
    claim_value, issuer_settings,
};

/// `strongroom issuer …`
#[derive(Debug, Subcommand)]
pub enum IssuerCommand {
    /// Believe the tokens of an issuer
    Add(Box<Add>),
    /// Show one issuer
    Show {
        /// Its name.
        name: String,
    },
    /// List issuers
    List {
        /// How many at most.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Change what is known of an issuer; what is left out stays
    Update(Box<Update>),
    /// Believe an issuer no more; what was got for its tokens ends
    Remove {
        /// Its name.
        name: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Bind claims of an issuer's tokens to identities
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Say which rule a token would match, and why the others do not; uses nothing up
    Test {
        /// A file that holds the token, or `-` for standard input.
        #[arg(value_name = "TOKEN-FILE")]
        file: PathBuf,
        /// The identity that it is to log in; any where it is left out.
        #[arg(long, default_value = "")]
        identity: String,
    },
}

/// `strongroom issuer rule …`
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Add a rule, once it was shown as a sentence
    Add(Box<AddRule>),
    /// List the rules of an issuer
    List {
        /// The issuer.
        issuer: String,
        /// How many at most.
        #[arg(long, default_value_t = 10_000)]
        limit: usize,
    },
    /// Remove a rule; what it gave ends
    Remove {
        /// The issuer.
        issuer: String,
        /// The rule's id.
        id: String,
        /// Why, for the record.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// What an issuer's tokens look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// GitHub Actions
    Github,
    /// GitLab CI
    Gitlab,
    /// Projected tokens of a Kubernetes cluster
    Kubernetes,
    /// Any other OIDC issuer
    Generic,
}

impl Preset {
    const fn word(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Kubernetes => "kubernetes",
            Self::Generic => "generic",
        }
    }
}

/// What is known of an issuer.
#[derive(Debug, Clone, Args)]
pub struct Known {
    /// A signature algorithm that it may use, like RS256, which is the usual one; may be repeated.
    #[arg(long = "alg", value_name = "ALG")]
    algorithms: Vec<String>,
    /// What keeps a token from being used again: once, hash or bound.
    #[arg(long, value_name = "MODE")]
    replay: Option<String>,
    /// Where its keys are, instead of asking its discovery document.
    #[arg(long, value_name = "URL", conflicts_with = "jwks_file")]
    jwks_url: Option<String>,
    /// Its keys, a file with a JWK set: nothing is fetched then.
    #[arg(long, value_name = "FILE")]
    jwks_file: Option<PathBuf>,
    /// The authorities that its certificate may come from, a PEM file; the public ones where it is
    /// left out.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// It may be at a private address.
    #[arg(long)]
    private: bool,
}

/// What `issuer add` takes.
#[derive(Debug, Clone, Args)]
pub struct Add {
    /// A name for it; of a Kubernetes issuer, the cluster's.
    name: String,
    /// What its tokens call it; GitHub's and GitLab's own where it is left out.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// What its tokens look like.
    #[arg(long, value_enum, default_value_t = Preset::Generic)]
    preset: Preset,
    /// Whom its tokens have to be for: a name that stands for this vault alone.
    #[arg(long, value_name = "NAME")]
    audience: String,
    #[command(flatten)]
    known: Known,
}

/// What `issuer update` takes.
#[derive(Debug, Clone, Args)]
pub struct Update {
    /// Its name.
    name: String,
    /// Whom its tokens have to be for.
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    #[command(flatten)]
    known: Known,
    /// It may not be at a private address any more.
    #[arg(long, conflicts_with = "private")]
    public: bool,
    /// Ask its discovery document where its keys are.
    #[arg(long, conflicts_with_all = ["jwks_url", "jwks_file"])]
    discovery: bool,
    /// End what was got for its tokens.
    #[arg(long)]
    end_sessions: bool,
}

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

/// Runs `strongroom issuer …`.
pub(super) async fn run(session: &Session, command: &IssuerCommand) -> Outcome {
    match command {
        IssuerCommand::Add(args) => add(session, args).await,
        IssuerCommand::Show { name } => show(session.format, &get(session, name).await?, text),
        IssuerCommand::List { limit } => list(session, *limit).await,
        IssuerCommand::Update(args) => update(session, args).await,
        IssuerCommand::Remove { name, reason } => {
            let request = RemoveIssuerRequest { name: name.clone(), reason: reason.clone() };
            let removed = session
                .call_once(request, async |wire, request| {
                    Client::new(wire).remove_issuer(request).await
                })
                .await?;
            show(session.format, &must(removed.issuer)?, |it| format!("removed:\n{}", text(it)))
        }
        IssuerCommand::Rule(RuleCommand::Add(args)) => add_rule(session, args).await,
        IssuerCommand::Rule(RuleCommand::List { issuer, limit }) => {
            list_rules(session, issuer, *limit).await
        }
        IssuerCommand::Rule(RuleCommand::Remove { issuer, id, reason }) => {
            let (issuer, id, reason) = (issuer.clone(), id.clone(), reason.clone());
            let removed = session
                .call_once(RemoveRuleRequest { issuer, id, reason }, async |wire, request| {
                    Client::new(wire).remove_rule(request).await
                })
                .await?;
            show(session.format, &must(removed.rule)?, |it| format!("removed: {}\n", it.sentence))
        }
        IssuerCommand::Test { file, identity } => test(session, file, identity).await,
    }
}

async fn get(session: &Session, name: &str) -> Outcome<Issuer> {
    let request = GetIssuerRequest { name: name.to_owned() };
    let found = session
        .call(request, async |wire, request| Client::new(wire).get_issuer(request).await)
        .await?;
    must(found.issuer)
}

/// Where keys are said to come from; none where nothing was said.
fn keys(known: &Known) -> Outcome<Option<issuer_settings::Keys>> {
    Ok(match (&known.jwks_url, &known.jwks_file) {
        (Some(url), _) => Some(issuer_settings::Keys::JwksUrl(url.clone())),
        (None, Some(file)) => Some(issuer_settings::Keys::Jwks(read_text(file)?.to_string())),
        (None, None) => None,
    })
}

fn authorities(file: Option<&Path>) -> Outcome<Option<String>> {
    file.map(|file| Ok(read_text(file)?.to_string())).transpose()
}

async fn add(session: &Session, args: &Add) -> Outcome {
    let url = match (&args.url, args.preset) {
        (Some(url), _) => url.clone(),
        (None, Preset::Github) => "https://token.actions.githubusercontent.com".to_owned(),
        (None, Preset::Gitlab) => "https://gitlab.com".to_owned(),
        (None, Preset::Kubernetes | Preset::Generic) => {
            return Err(Failure::usage("say with --url what the issuer's tokens call it"));
        }
    };
    let known = &args.known;
    let settings = IssuerSettings {
        preset: args.preset.word().to_owned(),
        audience: args.audience.clone(),
        algorithms: known.algorithms.clone(),
        replay: known.replay.clone().unwrap_or_default(),
        keys: keys(known)?,
        ca_pem: authorities(known.ca_file.as_deref())?.unwrap_or_default(),
        private_network: known.private,
    };
    let request = AddIssuerRequest { name: args.name.clone(), url, settings: Some(settings) };
    let added = session
        .call_once(request, async |wire, request| Client::new(wire).add_issuer(request).await)
        .await?;
    show(session.format, &must(added.issuer)?, text)
}

async fn update(session: &Session, args: &Update) -> Outcome {
    let before = get(session, &args.name).await?;
    let (known, was) = (&args.known, must(before.settings)?);
    let discovery = args.discovery.then_some(issuer_settings::Keys::Discovery(true));
    let settings = IssuerSettings {
        preset: was.preset,
        audience: args.audience.clone().unwrap_or(was.audience),
        algorithms: if known.algorithms.is_empty() {
            was.algorithms
        } else {
            known.algorithms.clone()
        },
        replay: known.replay.clone().unwrap_or(was.replay),
        keys: keys(known)?.or(discovery).or(was.keys),
        ca_pem: authorities(known.ca_file.as_deref())?.unwrap_or(was.ca_pem),
        private_network: (was.private_network || known.private) && !args.public,
    };
    let request = UpdateIssuerRequest {
        name: args.name.clone(),
        version: before.version,
        settings: Some(settings),
        end_sessions: args.end_sessions,
    };
    let changed = session
        .call_once(request, async |wire, request| Client::new(wire).update_issuer(request).await)
        .await?;
    show(session.format, &must(changed.issuer)?, text)
}

async fn list(session: &Session, limit: usize) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let page = session
            .call(ListIssuersRequest { page_size, page_token }, async |wire, request| {
                Client::new(wire).list_issuers(request).await
            })
            .await?;
        Ok((page.issuers, page.next_page_token))
    })
    .await?;
    show_list(session.format, &listed, ["NAME", "URL", "PRESET", "AUDIENCE", "RULES"], |issuer| {
        let settings = issuer.settings.clone().unwrap_or_default();
        [
            issuer.name.clone(),
            issuer.url.clone(),
            settings.preset,
            settings.audience,
            issuer.rules.to_string(),
        ]
    })
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
async fn add_rule(session: &Session, args: &AddRule) -> Outcome {
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
            return show(session.format, &said, |rule| format!("{}\n", rule.sentence));
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

async fn list_rules(session: &Session, issuer: &str, limit: usize) -> Outcome {
    let listed = collect(limit, async |page_size, page_token| {
        let request = ListRulesRequest { issuer: issuer.to_owned(), page_size, page_token };
        let page = session
            .call(request, async |wire, request| Client::new(wire).list_rules(request).await)
            .await?;
        Ok((page.rules, page.next_page_token))
    })
    .await?;
    show_list(session.format, &listed, ["ID", "RULE", "ADDED", "BY"], |rule: &IssuerRule| {
        [rule.id.clone(), rule.sentence.clone(), time(rule.created_at_ms), rule.created_by.clone()]
    })
}

async fn test(session: &Session, file: &Path, identity: &str) -> Outcome {
    let request =
        TestTokenRequest { token: read_secret(file)?.to_string(), identity: identity.to_owned() };
    let tested = session
        .call(request, async |wire, request| Client::new(wire).test_token(request).await)
        .await?;
    let matches = tested.problem.is_empty() && tested.trials.iter().any(|one| one.matches);
    show(session.format, &tested, tested_text)?;
    if matches {
        return Ok(());
    }
    let failure = Failure::new(Exit::Unauthenticated, "the token would log nobody in");
    Err(if session.format == Format::Json { failure.told() } else { failure })
}

fn tested_text(tested: &TestTokenResponse) -> String {
    let mut text = match (tested.issuer.as_str(), tested.problem.as_str()) {
        ("", problem) => format!("the token is not believed: {problem}\n"),
        (issuer, "") => format!("the token is one of {issuer}\n"),
        (issuer, problem) => format!("the token is one of {issuer}, but {problem}\n"),
    };
    for trial in &tested.trials {
        let rule = trial.rule.clone().unwrap_or_default();
        let verdict = match trial.objection.as_str() {
            "" => "matches".to_owned(),
            objection => format!("does not match: {objection}"),
        };
        text.push_str(&format!("{} {verdict}\n  {}\n", rule.id, rule.sentence));
    }
    if tested.more {
        text.push_str("there are more rules; name the identity with --identity\n");
    }
    text
}

fn text(issuer: &Issuer) -> String {
    let settings = issuer.settings.clone().unwrap_or_default();
    let keys = match &settings.keys {
        Some(issuer_settings::Keys::JwksUrl(url)) => url.clone(),
        Some(issuer_settings::Keys::Jwks(_)) => "a file".to_owned(),
        Some(issuer_settings::Keys::Discovery(_)) | None => "its discovery document".to_owned(),
    };
    let private = if settings.private_network { "yes" } else { "no" };
    let authorities = if settings.ca_pem.is_empty() { "public ones" } else { "its own" };
    fields(&[
        ("name", issuer.name.clone()),
        ("url", issuer.url.clone()),
        ("preset", settings.preset.clone()),
        ("audience", settings.audience.clone()),
        ("algorithms", settings.algorithms.join(", ")),
        ("replay", settings.replay.clone()),
        ("keys from", keys),
        ("authorities", authorities.to_owned()),
        ("private address", private.to_owned()),
        ("rules", issuer.rules.to_string()),
        ("added", by(issuer.created_at_ms, &issuer.created_by)),
        ("changed", by(issuer.changed_at_ms, &issuer.changed_by)),
    ])
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
