//! What an elevation role says. Must not know who asks, nor what was asked for.

use serde::{Deserialize, Serialize};

use super::ticket::TicketPattern;
use super::window::Window;
use crate::engines::identities::{LONG, check_text};
use crate::error::{Error, Result};
use crate::types::{FactorKind, IdentityName, ResourcePattern, Segment, VERBS, Verb};

/// How long an elevation is in force where nobody says, and at the most, in seconds.
const USUAL_S: u64 = 3_600;
const MOST_S: u64 = 8 * 3_600;
/// How long at the most in an emergency.
const EMERGENCY_S: u64 = 3_600;
/// Items of each list of a role, approvals of a step, and denials.
const LISTED: usize = 64;
const STEPS: usize = 8;
const VOTES: u32 = 16;
/// What makes nothing that stands, and yet could rid an emergency of those who review it.
const AGAINST_REVIEWERS: [&str; 4] =
    ["groups.remove", "identities.suspend", "identities.retire", "tokens.revoke"];

/// One step of approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// How many have to approve.
    pub approvals: u32,
    /// Groups whose humans may.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Whether the owners of what is asked for may.
    #[serde(default)]
    pub owners: bool,
}

/// What an elevation role says. People, groups and resources stand in it by their names, which are
/// never used for anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleDefinition {
    /// What it is for.
    pub purpose: String,
    /// Identities that may ask.
    pub requesters: Vec<String>,
    /// Groups whose members may ask.
    pub requester_groups: Vec<String>,
    /// The resources that may be asked for.
    pub resources: Vec<String>,
    /// The actions that it allows on them; `noun.*` for all of a noun.
    pub actions: Vec<String>,
    /// How long it is in force where nobody says, in seconds.
    pub default_ttl_s: u64,
    /// How long at the most, in seconds.
    pub max_ttl_s: u64,
    /// Who approves, one step after the other.
    pub steps: Vec<Step>,
    /// How many denials end a request.
    pub denials: u32,
    /// Whether a reason has to be given.
    pub reason_required: bool,
    /// What a ticket looks like; none is needed where it is empty.
    pub ticket_pattern: String,
    /// When it may be in force, at any time when empty.
    pub windows: Vec<Window>,
    /// Whether an elevated call may make what stands by itself: grants, enrolments, roles.
    pub standing: bool,
    /// Whether it is for emergencies: nobody approves it beforehand, others review it afterwards.
    pub break_glass: bool,
    /// Groups whose humans review what was done in an emergency, or could make what stands.
    pub reviewer_groups: Vec<String>,
    /// The kinds of factors of which one has to be proven to ask; none where empty.
    pub factors_to_ask: Vec<String>,
    /// The kinds of which one has to be proven to approve; any where empty.
    pub factors_to_approve: Vec<String>,
    /// As to ask, to activate.
    pub factors_to_activate: Vec<String>,
}

/// Reads kinds of factors.
///
/// # Errors
/// [`Error::Invalid`] for one that there is not.
pub(super) fn kinds(texts: &[String]) -> Result<Vec<FactorKind>> {
    texts.iter().map(|text| text.parse()).collect()
}

impl RoleDefinition {
    /// Reads what a row holds.
    ///
    /// # Errors
    /// [`Error::Internal`] when the row holds what it must not.
    pub fn read(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(Error::internal)
    }

    /// Writes what a row holds.
    ///
    /// # Errors
    /// [`Error::Internal`], which this type excludes.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Error::internal)
    }

    /// Fills in what was left out, and checks that the role may exist.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is wrong.
    pub fn checked(mut self) -> Result<Self> {
        check_text("a purpose", &self.purpose, LONG)?;
        self.denials = self.denials.max(1);
        if self.max_ttl_s == 0 {
            self.max_ttl_s = if self.default_ttl_s == 0 { USUAL_S } else { self.default_ttl_s };
        }
        if self.default_ttl_s == 0 {
            self.default_ttl_s = USUAL_S.min(self.max_ttl_s);
        }
        if self.max_ttl_s > MOST_S {
            return Err(Error::invalid(format!(
                "an elevation lasts at most {MOST_S} seconds, whatever its role says"
            )));
        }
        if self.default_ttl_s > self.max_ttl_s {
            return Err(Error::invalid(
                "the usual time of an elevation is no longer than the longest that its role allows",
            ));
        }
        self.check_lists()?;
        self.check_review()?;
        for factors in [&self.factors_to_ask, &self.factors_to_approve, &self.factors_to_activate] {
            kinds(factors)?;
        }
        if self.break_glass {
            self.check_break_glass()?;
            // Whoever goes first proves to be there.
            if self.factors_to_activate.is_empty() {
                let all = FactorKind::ALL.iter().map(|kind| kind.as_str().to_owned());
                self.factors_to_activate = all.collect();
            }
        } else {
            self.check_steps()?;
        }
        if !self.ticket_pattern.is_empty() {
            self.ticket_pattern.parse::<TicketPattern>()?;
        }
        self.windows.iter().try_for_each(Window::check)?;
        Ok(self)
    }

    fn check_lists(&self) -> Result<()> {
        let lengths = [
            ("requesters", self.requesters.len()),
            ("requester groups", self.requester_groups.len()),
            ("resources", self.resources.len()),
            ("actions", self.actions.len()),
            ("windows", self.windows.len()),
            ("reviewer groups", self.reviewer_groups.len()),
            ("factors to ask", self.factors_to_ask.len()),
            ("factors to approve", self.factors_to_approve.len()),
            ("factors to activate", self.factors_to_activate.len()),
        ];
        if let Some((what, _)) = lengths.iter().find(|(_, length)| *length > LISTED) {
            return Err(Error::invalid(format!("a role has at most {LISTED} {what}")));
        }
        if self.resources.is_empty() || self.actions.is_empty() {
            return Err(Error::invalid("a role names resources and actions"));
        }
        for name in &self.requesters {
            name.parse::<IdentityName>()?;
        }
        for name in self.requester_groups.iter().chain(&self.reviewer_groups) {
            name.parse::<Segment>()?;
        }
        for pattern in &self.resources {
            pattern.parse::<ResourcePattern>()?;
        }
        match self.actions.iter().find(|action| self.expand(action).is_empty()) {
            Some(_) if self.break_glass => Err(Error::invalid(
                "a role for emergencies names nothing that makes what stands, nor what takes \
                 people out of groups or suspends them: that would reach who reviews it",
            )),
            Some(_) => Err(Error::invalid(
                "an action is one of `strongroom actions`, or `noun.*` for all of a noun; asking, \
                 approving and configuring elevations is not among them",
            )),
            None => Ok(()),
        }
    }

    /// What nobody approved, and what may make something that stands, is reviewed by somebody;
    /// nothing else is.
    fn check_review(&self) -> Result<()> {
        let reviewed = self.break_glass || self.standing;
        match (reviewed, self.reviewer_groups.is_empty()) {
            (true, false) | (false, true) => Ok(()),
            (true, true) => Err(Error::invalid(
                "a role for emergencies, or one that may make what stands, names the groups that \
                 review it",
            )),
            (false, false) => Err(Error::invalid(
                "this role has no reviews: reviewing groups are for emergencies, and for what may \
                 make something that stands",
            )),
        }
    }

    /// What nobody approves is for named people, for an hour at the most, with a reason.
    fn check_break_glass(&self) -> Result<()> {
        let refused = |text| Err(Error::invalid(text));
        if self.requesters.is_empty() || !self.requester_groups.is_empty() {
            return refused("a role for emergencies names who may ask one by one, and no groups");
        }
        if !self.steps.is_empty() {
            return refused("a role for emergencies has no steps: nobody approves it beforehand");
        }
        if !self.windows.is_empty() {
            return refused("a role for emergencies has no change windows");
        }
        if self.max_ttl_s > EMERGENCY_S {
            return Err(Error::invalid(format!(
                "a role for emergencies lasts at most {EMERGENCY_S} seconds"
            )));
        }
        if !self.reason_required {
            return refused("a role for emergencies wants a reason");
        }
        if self.standing {
            return refused("a role for emergencies makes nothing that stands");
        }
        Ok(())
    }

    fn check_steps(&self) -> Result<()> {
        if self.steps.is_empty() || self.steps.iter().any(|step| step.approvals == 0) {
            return Err(Error::invalid(
                "a role has steps, and each needs at least one approval: nothing is elevated that \
                 nobody else approved",
            ));
        }
        if self.steps.len() > STEPS {
            return Err(Error::invalid(format!("a role has at most {STEPS} steps")));
        }
        if self.steps.iter().any(|step| step.approvals > VOTES) {
            return Err(Error::invalid(format!("a step takes at most {VOTES} approvals")));
        }
        if self.denials > VOTES {
            return Err(Error::invalid(format!("a request takes at most {VOTES} denials")));
        }
        for step in &self.steps {
            if step.groups.is_empty() && !step.owners {
                return Err(Error::invalid("a step says who approves: groups, owners, or both"));
            }
            if step.groups.len() > LISTED {
                return Err(Error::invalid(format!("a step names at most {LISTED} groups")));
            }
            for name in &step.groups {
                name.parse::<Segment>()?;
            }
        }
        Ok(())
    }

    /// Lists the actions that it allows, each once.
    #[must_use]
    pub fn expanded(&self) -> Vec<&'static str> {
        let mut all: Vec<_> = self.actions.iter().flat_map(|action| self.expand(action)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Lists the actions that a text stands for. What governs elevations themselves is never
    /// elevated, nor in an emergency what reaches those who review it.
    fn expand(&self, text: &str) -> Vec<&'static str> {
        let fits = |action: &str| match text.strip_suffix(".*") {
            Some(noun) => action.split_once('.').is_some_and(|(of, _)| of == noun),
            None => action == text,
        };
        let governs = |action: &str| action.starts_with("elevations.");
        let reaches = |verb: &Verb| verb.standing || AGAINST_REVIEWERS.contains(&verb.action);
        let verbs = VERBS.iter().filter(|verb| fits(verb.action) && !governs(verb.action));
        verbs.filter(|verb| !(self.break_glass && reaches(verb))).map(|verb| verb.action).collect()
    }
}

/// Finds the step whose turn it is: the first that has fewer approvals than it takes. None when all
/// have theirs.
#[must_use]
pub fn current_step(takes: impl IntoIterator<Item = u32>, given: &[u32]) -> Option<usize> {
    let mut steps = takes.into_iter().enumerate();
    steps.find(|(i, takes)| given.get(*i).copied().unwrap_or(0) < *takes).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role() -> RoleDefinition {
        RoleDefinition {
            purpose: "a test".to_owned(),
            requesters: vec!["carol".to_owned()],
            requester_groups: vec![],
            resources: vec!["database/analytics/*".to_owned()],
            actions: vec!["database.credentials".to_owned()],
            default_ttl_s: 0,
            max_ttl_s: 0,
            steps: vec![Step { approvals: 1, groups: vec!["security".to_owned()], owners: false }],
            denials: 0,
            reason_required: true,
            ticket_pattern: String::new(),
            windows: vec![],
            standing: false,
            break_glass: false,
            reviewer_groups: vec![],
            factors_to_ask: vec![],
            factors_to_approve: vec![],
            factors_to_activate: vec![],
        }
    }

    #[test]
    fn what_was_left_out_is_filled_in_and_comes_back_as_written() {
        let made = role().checked().unwrap();
        assert_eq!((made.default_ttl_s, made.max_ttl_s, made.denials), (3_600, 3_600, 1));
        assert_eq!(RoleDefinition::read(&made.to_json().unwrap()), Ok(made.clone()));
        let odd = made.to_json().unwrap().replace("\"denials\"", "\"weekday\":1,\"denials\"");
        assert_eq!(RoleDefinition::read(&odd), Err(Error::Internal));
    }

    #[test]
    fn the_longest_time_is_the_usual_one_where_nobody_says() {
        for (usual, longest, made) in [
            (900, 0, (900, 900)),
            (7_200, 0, (7_200, 7_200)),
            (0, 900, (900, 900)),
            (0, 7_200, (3_600, 7_200)),
            (900, 1_800, (900, 1_800)),
        ] {
            let one = RoleDefinition { default_ttl_s: usual, max_ttl_s: longest, ..role() };
            let one = one.checked().unwrap();
            assert_eq!((one.default_ttl_s, one.max_ttl_s), made, "{usual} {longest}");
        }
    }

    /// Says why a changed role is refused.
    fn refused(mut role: RoleDefinition, change: fn(&mut RoleDefinition)) -> String {
        change(&mut role);
        match role.checked() {
            Err(Error::Invalid(why)) => why.into_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_bound_of_a_role_says_which_it_is() {
        type Change = fn(&mut RoleDefinition);
        fn many(count: usize) -> Vec<String> {
            (0..count).map(|n| format!("a{n}")).collect()
        }
        let bounds: &[(&str, Change)] = &[
            ("at most 28800 seconds", |role| {
                (role.default_ttl_s, role.max_ttl_s) = (28_802, 28_801);
            }),
            ("usual time", |role| (role.default_ttl_s, role.max_ttl_s) = (60, 30)),
            ("at most 64 requesters", |role| role.requesters = many(65)),
            ("at most 64 requester groups", |role| role.requester_groups = many(65)),
            ("at most 64 resources", |role| role.resources = many(65)),
            ("at most 64 actions", |role| role.actions = many(65)),
            ("at most 64 windows", |role| {
                let window = Window { days: vec![], from: "22:00".into(), to: "23:00".into() };
                role.windows = vec![window; 65];
            }),
            ("at most 64 reviewer groups", |role| role.reviewer_groups = many(65)),
            ("at most 64 factors to ask", |role| role.factors_to_ask = many(65)),
            ("at most 64 factors to approve", |role| role.factors_to_approve = many(65)),
            ("at most 64 factors to activate", |role| role.factors_to_activate = many(65)),
            ("at most 8 steps", |role| role.steps = vec![role.steps[0].clone(); 9]),
            ("at most 16 approvals", |role| role.steps[0].approvals = 17),
            ("at most 16 denials", |role| role.denials = 17),
            ("at most 64 groups", |role| role.steps[0].groups = many(65)),
        ];
        for (bound, change) in bounds {
            let why = refused(role(), *change);
            assert!(why.contains(bound), "{bound}: {why}");
        }
        let most = RoleDefinition { requesters: many(64), denials: 16, ..role() };
        most.checked().unwrap();
    }

    #[test]
    fn what_may_make_something_that_stands_is_reviewed_and_nothing_else_but_emergencies() {
        let none = refused(role(), |role| role.standing = true);
        assert!(none.contains("names the groups that review it"), "{none}");
        let idle = refused(role(), |role| role.reviewer_groups = vec!["security".to_owned()]);
        assert!(idle.contains("has no reviews"), "{idle}");
        let reviewer_groups = vec!["security".to_owned()];
        RoleDefinition { standing: true, reviewer_groups, ..role() }.checked().unwrap();
    }

    #[test]
    fn a_role_that_loosens_the_rules_is_refused() {
        type Change = fn(&mut RoleDefinition);
        let bad: &[(&str, Change)] = &[
            ("no steps", |role| role.steps.clear()),
            ("no approvals", |role| role.steps[0].approvals = 0),
            ("nobody approves", |role| role.steps[0].groups.clear()),
            ("too many approvals", |role| role.steps[0].approvals = 17),
            ("too many steps", |role| role.steps = vec![role.steps[0].clone(); 9]),
            ("too long", |role| role.max_ttl_s = 8 * 3_600 + 1),
            ("usual beyond most", |role| (role.default_ttl_s, role.max_ttl_s) = (60, 30)),
            ("no resources", |role| role.resources.clear()),
            ("no actions", |role| role.actions.clear()),
            ("no such action", |role| role.actions = vec!["database.*x".to_owned()]),
            ("its own approval", |role| role.actions = vec!["elevations.approve".to_owned()]),
            ("its own noun", |role| role.actions = vec!["elevations.*".to_owned()]),
            ("no pattern", |role| role.resources = vec!["**".to_owned()]),
            ("no name", |role| role.requesters = vec!["Carol".to_owned()]),
            ("no such factor", |role| role.factors_to_ask = vec!["luck".to_owned()]),
            ("a line break", |role| role.purpose = "a\nb".to_owned()),
        ];
        for (what, change) in bad {
            let mut one = role();
            change(&mut one);
            assert!(matches!(one.checked(), Err(Error::Invalid(_))), "{what}");
        }
    }

    #[test]
    fn what_nobody_approves_is_for_named_people_for_an_hour_with_reason_and_review() {
        type Change = fn(&mut RoleDefinition);
        let glass = || RoleDefinition {
            steps: vec![],
            break_glass: true,
            reviewer_groups: vec!["security".to_owned()],
            ..role()
        };
        assert_eq!(glass().checked().unwrap().factors_to_activate, ["totp", "recovery"]);
        let bad: &[(&str, Change)] = &[
            ("one by one", |role| role.requester_groups = vec!["dba".to_owned()]),
            ("one by one", |role| role.requesters.clear()),
            ("names the groups", |role| role.reviewer_groups.clear()),
            ("no steps", |role| role.steps = self::role().steps),
            ("no change windows", |role| {
                let (from, to) = ("22:00".to_owned(), "23:00".to_owned());
                role.windows = vec![Window { days: vec![], from, to }];
            }),
            ("at most 3600 seconds", |role| role.max_ttl_s = 3_601),
            ("wants a reason", |role| role.reason_required = false),
            ("nothing that stands", |role| role.standing = true),
        ];
        for (what, change) in bad {
            let why = refused(glass(), *change);
            assert!(why.contains(what), "{what}: {why}");
        }
        assert!(RoleDefinition { steps: vec![], ..role() }.checked().is_err());
    }

    #[test]
    fn actions_are_expanded_once_each_and_never_to_those_of_elevations() {
        let actions = ["database.*", "database.list", "pki.sign"].map(str::to_owned).to_vec();
        let all = RoleDefinition { actions, ..role() }.expanded();
        assert!(all.contains(&"database.credentials") && all.contains(&"pki.sign"));
        assert_eq!(all.iter().filter(|one| **one == "database.list").count(), 1);
        assert!(all.iter().all(|one| !one.starts_with("elevations.")));
    }

    #[test]
    fn steps_come_one_after_the_other() {
        assert_eq!(current_step([2, 1], &[]), Some(0));
        assert_eq!(current_step([2, 1], &[1, 0]), Some(0));
        assert_eq!(current_step([2, 1], &[2, 0]), Some(1));
        assert_eq!(current_step([2, 1], &[2, 1]), None);
    }
}
