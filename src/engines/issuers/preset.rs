//! What a rule has to bind for tokens of a known issuer: what nobody can rename, register anew or
//! choose for themselves.

use super::rule::{Condition, RuleDefinition, Scalar};
use super::template::Template;
use crate::error::{Error, Result};
use crate::types::Preset;

/// GitHub: which repository and owner, by numbers that are never used again.
const REPOSITORY: &str = "repository_id";
const OWNER: &str = "repository_owner_id";
const EVENT: &str = "event_name";
/// GitLab: the same.
const PROJECT: &str = "project_id";
const NAMESPACE: &str = "namespace_id";
/// Both: whether who may push to the branch is limited.
const PROTECTED: &str = "ref_protected";
/// People: by what their provider knows one for ever, and whether an address was looked at.
const SUB: &str = "sub";
const EMAIL: &str = "email";
const EMAIL_VERIFIED: &str = "email_verified";
/// Kubernetes.
const K8S_NAMESPACE: &str = "kubernetes.io/namespace";
const K8S_ACCOUNT: &str = "kubernetes.io/serviceaccount/uid";

/// Adds to a rule what follows from it, and checks that it binds what it must.
///
/// # Errors
/// [`Error::Invalid`] with what is missing.
pub(super) fn complete(preset: Preset, mut rule: RuleDefinition) -> Result<RuleDefinition> {
    match preset {
        Preset::GitHub => github(&mut rule)?,
        Preset::GitLab => {
            require(&rule, "gitlab", &[NAMESPACE], &[PROJECT])?;
            protect(&mut rule)?;
        }
        Preset::Kubernetes => require(&rule, "kubernetes", &[K8S_NAMESPACE], &[K8S_ACCOUNT])?,
        Preset::People => people(&mut rule)?,
        Preset::Generic => {
            // A template says whom a token yields, and not whose tokens are believed.
            if rule.claims.is_empty() {
                return Err(Error::invalid(
                    "a rule binds at least one claim: the audience alone says nothing of who asks",
                ));
            }
        }
    }
    Ok(rule)
}

fn github(rule: &mut RuleDefinition) -> Result<()> {
    if rule.claims.iter().any(|one| one.claim == "sub") {
        return Err(Error::invalid(
            "`sub` of GitHub is made of names that can be changed and taken by others: bind \
             repository_id and repository_owner_id",
        ));
    }
    require(rule, "github", &[OWNER, EVENT], &[REPOSITORY])?;
    if rule.binds("ref") {
        protect(rule)?;
    } else if !rule.binds("environment") {
        return Err(Error::invalid(
            "a rule for github binds a protected `ref` or an `environment`: else any branch, which \
             anybody who may push can make, gets what it yields",
        ));
    }
    let workflows = rule.claims.iter().filter(|one| one.claim == "job_workflow_ref");
    for value in workflows.flat_map(|one| &one.any) {
        let whole = |text: &String| text.contains("/.github/workflows/") && text.contains('@');
        if !matches!(value, Scalar::Text(text) if whole(text)) {
            return Err(Error::invalid(
                "job_workflow_ref is bound whole: OWNER/REPO/.github/workflows/FILE@REF",
            ));
        }
    }
    Ok(())
}

/// Wants one person bound, by what is never another's: addresses and names are given anew
/// (`OpenID` Connect Core 1.0, section 5.7).
fn people(rule: &mut RuleDefinition) -> Result<()> {
    if rule.template.is_some() {
        return Err(Error::invalid(
            "people are registered by an administrator, and no template names them",
        ));
    }
    let sub = rule.claims.iter().find(|one| one.claim == SUB);
    let one = sub.is_some_and(|one| matches!(one.any.as_slice(), [Scalar::Text(_)]));
    if !one {
        return Err(Error::invalid(
            "a rule for people binds `sub` to one text: what the provider calls this person, and \
             nobody else ever; an `email` can be given to another",
        ));
    }
    if !rule.binds(EMAIL) {
        return Ok(());
    }
    let wanted = Condition { claim: EMAIL_VERIFIED.to_owned(), any: vec![Scalar::Flag(true)] };
    match rule.claims.iter().find(|one| one.claim == EMAIL_VERIFIED) {
        None => rule.claims.push(wanted),
        Some(found) if *found == wanted => {}
        Some(_) => {
            return Err(Error::invalid("`email_verified` is bound to true, or left out"));
        }
    }
    Ok(())
}

/// Wants some claims bound, and others bound or in the name that a template makes.
fn require(rule: &RuleDefinition, preset: &str, bound: &[&str], named: &[&str]) -> Result<()> {
    let template = rule.template.as_ref().map(Template::claims).transpose()?.unwrap_or_default();
    let missing = bound
        .iter()
        .find(|claim| !rule.binds(claim))
        .or_else(|| named.iter().find(|claim| !rule.binds(claim) && !template.contains(claim)));
    if let Some(missing) = missing {
        return Err(Error::invalid(format!(
            "a rule for {preset} binds `{missing}`, because it can be neither renamed nor reused"
        )));
    }
    // Other names can be changed by whoever they are of.
    let stable = bound.iter().chain(named);
    if let Some(other) = template.iter().find(|claim| !stable.clone().any(|it| it == *claim)) {
        return Err(Error::invalid(format!(
            "a template for {preset} is not made of `{other}`, which can be renamed or chosen"
        )));
    }
    let text = |one: &&Condition| {
        bound.contains(&one.claim.as_str()) || named.contains(&one.claim.as_str())
    };
    let mut values =
        rule.claims.iter().filter(text).flat_map(|one| one.any.iter().map(move |it| (one, it)));
    if let Some((one, _)) = values.find(|(_, value)| !matches!(value, Scalar::Text(_))) {
        return Err(Error::invalid(format!("`{}` is text in tokens of {preset}", one.claim)));
    }
    Ok(())
}

/// Wants the branch or tag protected: the token says so in text.
fn protect(rule: &mut RuleDefinition) -> Result<()> {
    let wanted = Condition::text(PROTECTED, "true");
    match rule.claims.iter().find(|one| one.claim == PROTECTED) {
        None => rule.claims.push(wanted),
        Some(found) if *found == wanted => {}
        Some(_) => {
            return Err(Error::invalid("`ref_protected` is bound to the text true, or left out"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(claims: &[(&str, &str)], template: &str) -> RuleDefinition {
        let template = (!template.is_empty()).then(|| {
            Template {
                name: template.to_owned(),
                kind: String::new(),
                owner_group: "g".to_owned(),
                group: String::new(),
                tier: String::new(),
                most: 1,
                lasts_s: 0,
            }
            .filled()
        });
        let claims = claims.iter().map(|(name, value)| Condition::text(name, value)).collect();
        RuleDefinition { claims, template, ttl_s: 0, max_ttl_s: 0 }.checked().unwrap()
    }

    const GITHUB: [(&str, &str); 3] =
        [("repository_id", "1"), ("repository_owner_id", "2"), ("event_name", "push")];

    #[test]
    fn each_preset_wants_what_can_be_neither_renamed_nor_reused() {
        let github = |more: &[(&'static str, &'static str)]| [&GITHUB[..], more].concat();
        let cluster = [(K8S_NAMESPACE, "n"), (K8S_ACCOUNT, "u")];
        for (preset, claims, template, fits) in [
            (Preset::GitHub, github(&[("environment", "prod")]), "", true),
            (Preset::GitHub, github(&[("ref", "refs/heads/main")]), "", true),
            (Preset::GitHub, github(&[]), "", false),
            (Preset::GitHub, github(&[("environment", "prod"), ("sub", "x")]), "", false),
            (Preset::GitHub, github(&[("ref", "x"), ("ref_protected", "false")]), "", false),
            (
                Preset::GitHub,
                github(&[("environment", "p"), ("job_workflow_ref", "o/r")]),
                "",
                false,
            ),
            (
                Preset::GitHub,
                github(&[
                    ("environment", "p"),
                    ("job_workflow_ref", "o/r/.github/workflows/a.yml@refs/heads/main"),
                ]),
                "",
                true,
            ),
            (
                Preset::GitHub,
                vec![GITHUB[1], GITHUB[2], ("environment", "p")],
                "ci-{repository_id}",
                true,
            ),
            (
                Preset::GitHub,
                vec![GITHUB[1], GITHUB[2], ("environment", "p")],
                "ci-{repository}",
                false,
            ),
            (Preset::GitHub, github(&[("environment", "p")]), "ci-{actor}", false),
            (Preset::GitHub, vec![GITHUB[0], GITHUB[2], ("environment", "p")], "", false),
            (Preset::GitHub, vec![GITHUB[0], GITHUB[1], ("environment", "p")], "", false),
            (Preset::GitLab, vec![("project_id", "1"), ("namespace_id", "2")], "", true),
            (Preset::GitLab, vec![("project_id", "1")], "", false),
            (Preset::GitLab, vec![("namespace_id", "2")], "", false),
            (Preset::GitLab, vec![("namespace_id", "2")], "ci-{project_id}", true),
            (Preset::Kubernetes, cluster.to_vec(), "", true),
            (Preset::Kubernetes, cluster[..1].to_vec(), "", false),
            (Preset::Kubernetes, cluster[1..].to_vec(), "", false),
            (Preset::People, vec![("sub", "a")], "", true),
            (Preset::People, vec![("email", "a@example.org")], "", false),
            (Preset::People, vec![], "", false),
            (Preset::People, vec![("sub", "a"), ("email_verified", "true")], "", true),
            (
                Preset::People,
                vec![("sub", "a"), ("email", "a@example.org"), ("email_verified", "true")],
                "",
                false,
            ),
            (Preset::People, vec![("org", "a")], "p-{sub}", false),
            (Preset::Generic, vec![("sub", "a")], "", true),
            (Preset::Generic, vec![], "", false),
            (Preset::Generic, vec![], "ci-{sub}", false),
            (Preset::Generic, vec![("org", "a")], "ci-{sub}", true),
        ] {
            let said = format!("{preset} {claims:?} {template}");
            assert_eq!(complete(preset, rule(&claims, template)).is_ok(), fits, "{said}");
        }
    }

    #[test]
    fn a_branch_has_to_be_protected_also_where_nobody_says_so() {
        let wanted = Condition::text("ref_protected", "true");
        let github = [&GITHUB[..], &[("ref", "refs/heads/main")]].concat();
        assert!(complete(Preset::GitHub, rule(&github, "")).unwrap().claims.contains(&wanted));
        let gitlab = rule(&[("project_id", "1"), ("namespace_id", "2")], "");
        assert!(complete(Preset::GitLab, gitlab).unwrap().claims.contains(&wanted));
    }

    #[test]
    fn one_rule_is_for_one_person_whose_address_was_looked_at() {
        let mut two = rule(&[("sub", "a")], "");
        two.claims[0].any.push(Scalar::Text("b".to_owned()));
        assert!(complete(Preset::People, two).is_err());
        let mut number = rule(&[("sub", "a")], "");
        number.claims[0].any = vec![Scalar::Number(1)];
        assert!(complete(Preset::People, number).is_err());
        let addressed = rule(&[("sub", "a"), ("email", "a@example.org")], "");
        let verified =
            Condition { claim: "email_verified".to_owned(), any: vec![Scalar::Flag(true)] };
        assert!(complete(Preset::People, addressed).unwrap().claims.contains(&verified));
    }

    #[test]
    fn a_number_where_the_token_has_text_is_refused() {
        let mut one = rule(&[("project_id", "1"), ("namespace_id", "2")], "");
        one.claims[0].any = vec![Scalar::Number(1)];
        assert!(complete(Preset::GitLab, one).is_err());
    }
}
