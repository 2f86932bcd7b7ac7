//! Decisions that stand on grants: what they cover, from where, until when.

use super::*;

const CREDS: &str = "database.credentials";
const READER: &str = "database/analytics/reader";

fn etl() -> Scene {
    pipeline(CREDS, thing(READER))
}

#[test]
fn a_grant_covers_its_subject_action_and_pattern_only() {
    for (grant, allow) in [
        (given(9, CREDS, READER), true),
        (given(9, CREDS, "database/*/reader"), true),
        (given(9, CREDS, "database/**"), true),
        (given(9, CREDS, READER).to(GrantSubject::Group(TEAM)), true),
        (given(9, CREDS, "database/*"), false),
        (given(9, CREDS, "database/analytics/writer"), false),
        (given(9, CREDS, "database/analytics/reader/x"), false),
        (given(9, "pki.sign", READER), false),
        (given(9, CREDS, READER).to(GrantSubject::Identity(OTHER)), false),
        (given(9, CREDS, READER).to(GrantSubject::Group(GroupId(id(51)))), false),
        // Ids of different sorts never stand for each other.
        (given(9, CREDS, READER).to(GrantSubject::Group(GroupId(CALLER.0))), false),
    ] {
        let scene = etl().granted(grant.clone());
        if allow {
            allowed_by_grant(&scene, &[9]);
        } else {
            refused(&scene, Reason::NoGrant);
        }
    }
    let stranger = etl().granted(given(9, CREDS, READER).to(GrantSubject::Group(TEAM)));
    refused(&stranger.with(|scene| scene.member = false), Reason::NoGrant);
}

#[test]
fn every_resource_needs_a_grant() {
    let two = etl().with(|scene| scene.things.push(thing("database/billing/reader")));
    let half = two.clone().granted(given(9, CREDS, READER));
    refused(&half, Reason::NoGrant);
    allowed_by_grant(&half.granted(given(8, CREDS, "database/billing/*")), &[9, 8]);
    allowed_by_grant(&two.granted(given(7, CREDS, "database/**")), &[7]);
}

#[test]
fn wildcards_never_cover_administrative_actions() {
    for (pattern, allow) in [
        ("groups/target", true),
        ("groups/*", false),
        ("groups/**", false),
        ("groups/t*", false),
        ("groups/target*", false),
        ("groups/other", false),
    ] {
        let scene =
            human("groups.add", thing("groups/target")).granted(given(9, "groups.add", pattern));
        if allow {
            allowed_by_grant(&scene, &[9]);
        } else {
            refused(&scene, Reason::NotAdministrator);
        }
    }
    // A wildcard beside an exact grant does not take its place.
    let both = human("groups.add", thing("groups/target"))
        .granted(given(8, "groups.add", "groups/*"))
        .granted(given(9, "groups.add", "groups/target"));
    allowed_by_grant(&both, &[9]);
}

#[test]
fn a_grant_holds_from_its_beginning_to_before_its_end() {
    for (grant, allow, valid_until) in [
        (given(9, CREDS, READER), true, None),
        (given(9, CREDS, READER).until(at(1)), true, Some(at(1))),
        (given(9, CREDS, READER).until(NOW), false, None),
        (given(9, CREDS, READER).until(at(-1)), false, None),
        (given(9, CREDS, READER).from(NOW), true, None),
        (given(9, CREDS, READER).from(at(5)), false, Some(at(5))),
        (given(9, CREDS, READER).from(at(-5)).until(at(5)), true, Some(at(5))),
    ] {
        let verdict = etl().granted(grant).decide();
        assert_eq!(verdict.allow, allow, "{verdict:?}");
        assert_eq!(verdict.valid_until, valid_until, "{verdict:?}");
    }
}

#[test]
fn a_verdict_is_valid_until_the_first_end_of_what_it_stood_on() {
    let scene = etl()
        .granted(given(9, CREDS, READER).until(at(300)))
        .with(|scene| scene.expires_at = Some(at(200)));
    assert_eq!(scene.decide().valid_until, Some(at(200)));
    let scene = scene.with(|scene| scene.credential_expires_at = Some(at(100)));
    assert_eq!(scene.decide().valid_until, Some(at(100)));
    // Of two grants the longer one is chosen; one that begins later and is better ends it.
    let two = etl()
        .granted(given(9, CREDS, READER).until(at(300)))
        .granted(given(8, CREDS, READER).until(at(400)));
    let verdict = two.decide();
    assert_eq!(
        (verdict.by, verdict.valid_until),
        (Basis::Grants(vec![GrantId(id(8))]), Some(at(400)))
    );
    let soon = etl()
        .granted(given(9, CREDS, READER).ttl(60))
        .granted(given(8, CREDS, READER).from(at(50)));
    let verdict = soon.decide();
    assert_eq!((verdict.obligations.max_ttl_s, verdict.valid_until), (Some(60), Some(at(50))));
}

#[test]
fn the_longest_time_to_live_counts_for_one_resource_and_the_shortest_over_several() {
    let one =
        etl().granted(given(9, CREDS, READER).ttl(60)).granted(given(8, CREDS, READER).ttl(600));
    assert_eq!(one.decide().obligations.max_ttl_s, Some(600));
    let two = one
        .with(|scene| scene.things.push(thing("database/billing/reader")))
        .granted(given(7, CREDS, "database/billing/reader").ttl(30));
    assert_eq!(two.decide().obligations.max_ttl_s, Some(30));
    assert_eq!(etl().granted(given(9, CREDS, READER)).decide().obligations, Obligations::default());
}

#[test]
fn a_grant_that_hides_nothing_counts_before_one_that_masks() {
    let secret = || pipeline("secrets.get", thing("secrets/crm/card"));
    let masked = |id| given(id, "secrets.get", "secrets/crm/*").masking("card", "last4");
    let one = secret().granted(masked(9));
    assert_eq!(one.decide().obligations.masks, [Mask::parse("card", "last4").unwrap()]);
    assert!(one.decide().explain().ends_with(", masked"));
    // Whatever else is better about the other, and as soon as it holds.
    let plain = given(8, "secrets.get", "secrets/crm/card").ttl(60).from(at(50));
    let two = secret().granted(masked(9)).granted(plain);
    let verdict = two.decide();
    assert_eq!((verdict.obligations.masks.len(), verdict.valid_until), (1, Some(at(50))));
    let plain = given(8, "secrets.get", "secrets/crm/card").ttl(60);
    let verdict = secret().granted(masked(9)).granted(plain).decide();
    assert_eq!(verdict.by, Basis::Grants(vec![GrantId(id(8))]));
    assert_eq!(verdict.obligations.masks, []);
    // The owner reads what is its own whole.
    let own = pipeline("secrets.get", thing("secrets/crm/card").owned(CALLER)).granted(masked(9));
    assert_eq!((own.decide().by, own.decide().obligations.masks.len()), (Basis::Rule("owner"), 0));
}

#[test]
fn a_grant_for_an_address_range_holds_there_and_nowhere_else() {
    for (source, allow) in [
        (Some("10.1.2.3"), true),
        (Some("::ffff:10.1.2.3"), true),
        (Some("11.1.2.3"), false),
        (Some("2001:db8::1"), false),
        (None, false),
    ] {
        let verdict = etl()
            .granted(given(9, CREDS, READER).within("10.0.0.0/8"))
            .with(|scene| scene.source = source.map(|text| text.parse().unwrap()))
            .decide();
        assert_eq!(verdict.allow, allow, "{source:?}");
        assert!(verdict.depends_on_source, "{source:?}");
    }
    let anywhere = etl()
        .granted(given(9, CREDS, READER).within("10.0.0.0/8"))
        .granted(given(8, CREDS, READER));
    allowed_by_grant(&anywhere, &[8]);
    assert!(!anywhere.decide().depends_on_source, "a grant without ranges was there");
}

#[test]
fn explanations_name_the_grant_or_the_rule() {
    let explained = |scene: Scene| scene.decide().explain();
    assert_eq!(
        explained(etl().granted(given(9, CREDS, READER).ttl(60).until(at(1_000)))),
        format!(
            "allowed by grant {}, for at most 60 s, until 1970-01-01T00:16:41.000Z at the latest",
            id(9)
        )
    );
    assert_eq!(
        explained(pipeline("pki.ca", thing("pki/authorities"))),
        "allowed by rule everybody"
    );
    assert_eq!(explained(etl()), "refused by rule no_grant");
}
