//! `strongroom issuer …`

mod rule;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use self::rule::{AddRule, add_rule};

use super::failure::{Exit, Failure, Outcome};
use super::files::{read_secret, read_text};
use super::identities::by;
use super::output::{Format, escape, fields, show, show_list, time};
use super::session::{Session, collect, must};
use crate::proto::issuer_service_client::IssuerServiceClient as Client;
use crate::proto::{
    AddIssuerRequest, GetIssuerRequest, Issuer, IssuerRule, IssuerSettings, ListIssuersRequest,
    ListRulesRequest, RemoveIssuerRequest, RemoveRuleRequest, TestTokenRequest, TestTokenResponse,
    TokenReview, UpdateIssuerRequest, issuer_settings,
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
pub(super) enum Preset {
    /// GitHub Actions
    Github,
    /// GitLab CI
    Gitlab,
    /// Projected tokens of a Kubernetes cluster
    Kubernetes,
    /// The provider by which people sign in
    People,
    /// Any other OIDC issuer
    Generic,
}

impl Preset {
    const fn word(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Kubernetes => "kubernetes",
            Self::People => "people",
            Self::Generic => "generic",
        }
    }
}

/// What is known of an issuer.
#[derive(Debug, Clone, Args)]
pub(super) struct Known {
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
    /// Of a Kubernetes issuer, the API server: it is asked whether it still stands behind each token.
    #[arg(long, value_name = "URL", requires = "token_review_credential")]
    token_review_url: Option<String>,
    /// The authorities that the API server's certificate may come from, a PEM file; the public ones
    /// where it is left out.
    #[arg(long, value_name = "FILE", requires = "token_review_url")]
    token_review_ca: Option<PathBuf>,
    /// A file with the bearer token that it is asked with, of a service account that may review
    /// tokens; the vault keeps it, and shows it to nobody.
    #[arg(long, value_name = "FILE")]
    token_review_credential: Option<PathBuf>,
    /// Where people sign in, what it is asked for besides openid, like email; may be repeated.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Where people sign in, they may with a code on another device as well; `--device=false` for no
    /// more.
    #[arg(
        long,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    device: Option<bool>,
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
    /// Whom its tokens have to be for: a name that stands for this vault alone; where people sign in,
    /// the id of its client there.
    #[arg(long, visible_alias = "client-id", value_name = "NAME")]
    audience: String,
    #[command(flatten)]
    known: Known,
}

/// What `issuer update` takes.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
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
    /// Ask no API server any more; the credential for it is forgotten.
    #[arg(long, conflicts_with_all = ["token_review_url", "token_review_credential"])]
    no_token_review: bool,
    /// End what was got for its tokens.
    #[arg(long)]
    end_sessions: bool,
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
            show(session.format, &must(removed.rule)?, |it| {
                format!("removed: {}\n", escape(&it.sentence))
            })
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

/// Where a cluster is said to be asked; none where nothing was said.
fn review(known: &Known) -> Outcome<Option<TokenReview>> {
    let Some(url) = known.token_review_url.clone() else { return Ok(None) };
    let ca_pem = authorities(known.token_review_ca.as_deref())?.unwrap_or_default();
    Ok(Some(TokenReview { url, ca_pem }))
}

/// What it is asked with; empty where nothing was said.
fn reviewer(known: &Known) -> Outcome<String> {
    let read = known.token_review_credential.as_deref().map(read_secret).transpose()?;
    Ok(read.map(|secret| secret.to_string()).unwrap_or_default())
}

async fn add(session: &Session, args: &Add) -> Outcome {
    let url = match (&args.url, args.preset) {
        (Some(url), _) => url.clone(),
        (None, Preset::Github) => "https://token.actions.githubusercontent.com".to_owned(),
        (None, Preset::Gitlab) => "https://gitlab.com".to_owned(),
        (None, Preset::Kubernetes | Preset::People | Preset::Generic) => {
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
        token_review: review(known)?,
        scopes: known.scopes.clone(),
        device_codes: known.device.unwrap_or_default(),
    };
    let request = AddIssuerRequest {
        name: args.name.clone(),
        url,
        settings: Some(settings),
        reviewer_credential: reviewer(known)?,
    };
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
        token_review: review(known)?.or(was.token_review).filter(|_| !args.no_token_review),
        scopes: if known.scopes.is_empty() { was.scopes } else { known.scopes.clone() },
        device_codes: known.device.unwrap_or(was.device_codes),
    };
    let request = UpdateIssuerRequest {
        name: args.name.clone(),
        version: before.version,
        settings: Some(settings),
        end_sessions: args.end_sessions,
        reviewer_credential: reviewer(known)?,
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
    // Claims are whoever made the token's to choose, and a sentence quotes them.
    let mut text = match (tested.issuer.as_str(), escape(&tested.problem).as_str()) {
        ("", problem) => format!("the token is not believed: {problem}\n"),
        (issuer, "") => format!("the token is one of {issuer}\n"),
        (issuer, problem) => format!("the token is one of {issuer}, but {problem}\n"),
    };
    for trial in &tested.trials {
        let rule = trial.rule.clone().unwrap_or_default();
        let verdict = match trial.objection.as_str() {
            "" => "matches".to_owned(),
            objection => format!("does not match: {}", escape(objection)),
        };
        text.extend([&rule.id, " ", &verdict, "\n  ", &escape(&rule.sentence), "\n"]);
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
    let devices = if settings.device_codes { "yes" } else { "" };
    let authorities = if settings.ca_pem.is_empty() { "public ones" } else { "its own" };
    let review = settings.token_review.unwrap_or_default().url;
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
        ("tokens reviewed by", review),
        ("scopes", settings.scopes.join(" ")),
        ("device codes", devices.to_owned()),
        ("rules", issuer.rules.to_string()),
        ("added", by(issuer.created_at_ms, &issuer.created_by)),
        ("changed", by(issuer.changed_at_ms, &issuer.changed_by)),
    ])
}
