# The built-in policy: who may do what when nobody has written another.
#
# `input` is described in docs/authorization.md; src/policy/input.rs builds it. Every comparison
# that guards is written so that an undefined value refuses. What a grant covers (its subject,
# action and resource pattern) and whether the caller's address and login satisfy it were matched
# before: `resource.grants` holds the candidates in order of preference.
#
# `decision` is one of {"refuse": reason}, {"rule": name} and {"grants": [index for each resource]}.

package strongroom

import rego.v1

# What an identity receives anew, or keeps for longer; without an active owner it gets neither.
receives := {
	"database.credentials", "pki.issue", "pki.sign", "leases.renew", "tokens.create",
	"tokens.renew", "secrets.get", "keys.decrypt", "keys.decrypt-stream", "keys.datakey",
	"keys.sign", "keys.mac", "keys.sign-artifact", "elevations.activate", "elevations.extend",
	"enrolments.renew", "wraps.unwrap",
}

# What belongs to whoever holds the lease, the certificate, the token or the wrap.
for_holder := {
	"leases.list", "leases.renew", "leases.revoke", "pki.list", "pki.revoke", "tokens.inspect",
	"tokens.list", "tokens.renew", "tokens.revoke", "factors.list", "elevations.revoke",
	"wraps.show", "wraps.list", "wraps.revoke",
}

# What the owner of the thing may do to what others hold of it: see it and end it, never extend it.
for_owner := {
	"leases.list", "leases.revoke", "pki.list", "pki.revoke", "identities.show",
	"identities.holdings",
	"tokens.inspect", "tokens.list", "tokens.revoke", "elevations.revoke",
	"enrolments.list", "enrolments.revoke",
	"wraps.show", "wraps.list", "wraps.revoke",
}

# What the owner of a secret may do with what is its own data.
for_secrets_owner := {
	"secrets.put", "secrets.get", "secrets.history", "secrets.rollback", "secrets.delete",
	"secrets.undelete", "secrets.destroy", "secrets.metadata", "secrets.update", "secrets.transfer",
}

# What the owner of a named key may do with it.
for_keys_owner := {
	"keys.show", "keys.rotate", "keys.update", "keys.encrypt", "keys.decrypt", "keys.rewrap",
	"keys.encrypt-stream", "keys.decrypt-stream",
	"keys.datakey", "keys.mac", "keys.verify-mac", "keys.sign", "keys.verify", "keys.export",
	"keys.import", "keys.transfer", "keys.backup", "keys.sign-artifact", "keys.usage",
}

# What makes a credential by which somebody else is known.
mints := {"identities.issue-cert", "tokens.mint", "factors.invite", "enrolments.create"}

# What the owner of a machine may do for it: a human of the group, where a group owns it.
for_machines_owner := {
	"identities.issue-cert", "identities.transfer", "tokens.mint", "enrolments.create",
}

# What every identity does for itself.
for_self := {
	"identities.whoami", "identities.show", "tokens.create", "factors.enrol", "factors.confirm",
	"factors.recovery-codes", "factors.verify", "factors.remove", "enrolments.renew",
}

# What every active identity may do: read what is public, list the secrets and keys that it may do
# something with, draw random bytes, open what was wrapped for it with the handle, and ask, look and
# vote where the role of an elevation says so; the engines look at that.
for_all := {
	"records.checkpoint", "pki.ca", "pki.crl", "elevations.show-role", "elevations.list-roles",
	"elevations.request", "elevations.list", "elevations.watch", "elevations.show", "elevations.approve",
	"elevations.deny", "elevations.review", "secrets.list", "secrets.search",
	"keys.list", "keys.random", "wraps.unwrap",
}

# What is for whoever asked for an elevation alone.
for_requester := {"elevations.withdraw", "elevations.activate", "elevations.extend"}

default decision := {"refuse": "no_grant"}

decision := {"refuse": "identity_suspended"} if {
	input.caller.state == "suspended"
} else := {"refuse": "identity_not_active"} if {
	not input.caller.state == "active"
} else := {"refuse": "identity_expired"} if {
	not input.caller.expires_at > input.now
} else := {"refuse": "credential_expired"} if {
	not input.credential.expires_at > input.now
} else := {"refuse": "nothing_asked"} if {
	not count(input.resources) > 0
} else := bootstrap if {
	input.caller.kind == "bootstrap"
} else := {"refuse": "machines_never_administer"} if {
	input.administrative
	not input.caller.kind == "human"
} else := {"refuse": "machines_have_no_factors"} if {
	startswith(input.action, "factors.")
	not input.caller.kind == "human"
} else := {"refuse": "owner_inactive"} if {
	input.action in receives
	not input.caller.owner_active
} else := {"rule": "self"} if {
	input.action in for_self
	every resource in input.resources { resource.identity.id == input.caller.id }
} else := {"rule": "self"} if {
	input.action == "identities.issue-cert"
	input.credential.signed_in
	input.credential.method == "token"
	every resource in input.resources { resource.identity.id == input.caller.id }
} else := {"rule": "everybody"} if {
	input.action in for_all
} else := {"rule": "holder"} if {
	input.action in for_requester
	every resource in input.resources { resource.holder == input.caller.id }
} else := {"refuse": "not_holder"} if {
	input.action in for_requester
} else := {"rule": "holder"} if {
	input.action in for_holder
	every resource in input.resources { resource.holder == input.caller.id }
} else := {"rule": "owner"} if {
	input.action in for_owner
	every resource in input.resources { resource.owned }
} else := {"rule": "owner"} if {
	input.action in for_secrets_owner
	every resource in input.resources { resource.owned }
} else := {"rule": "owner"} if {
	input.action in for_keys_owner
	every resource in input.resources { resource.owned }
} else := {"rule": "owner"} if {
	input.action in for_machines_owner
	every resource in input.resources {
		resource.owned
		resource.identity.machine
	}
} else := {"refuse": "mint_forbidden"} if {
	input.action == "tokens.mint"
	for_human
} else := {"refuse": "subject_owner_inactive"} if {
	input.action in mints
	administers
	orphaned
} else := {"rule": "administrator"} if {
	input.administrative
	administers
} else := {"rule": "administrator"} if {
	input.action in for_holder
	administers
} else := {"refuse": "mint_forbidden"} if {
	input.action in mints
} else := {"grants": chosen} if {
	count(chosen) == count(input.resources)
} else := {"refuse": "login_unfit"} if {
	unfit
} else := {"refuse": "not_administrator"} if {
	input.administrative
} else := {"refuse": "not_holder"} if {
	input.action in for_holder
}

administers if {
	input.caller.kind == "human"
	input.caller.administrator
}

# A rule of its own: on the register VM a `some` that finds nothing ends the whole chain above.
orphaned if {
	some resource in input.resources
	resource.identity.owner_active == false
}

for_human if {
	some resource in input.resources
	resource.identity.machine == false
}

# Somebody who had logged in otherwise would be let through by a grant.
unfit if {
	some resource in input.resources
	some grant in resource.grants
	grant.login_fits == false
	stands(grant)
}

# The bootstrap certificate registers human administrators and signs the first request of a human
# that it registered; nothing else, whatever grants say.
default bootstrap := {"refuse": "bootstrap_limited"}

bootstrap := {"rule": "bootstrap"} if {
	input.action == "identities.create"
	every resource in input.resources {
		resource.identity.kind == "human"
		resource.identity.administrator
	}
} else := {"rule": "bootstrap"} if {
	input.action == "identities.issue-cert"
	every resource in input.resources {
		resource.identity.kind == "human"
		resource.identity.registered_by == input.caller.id
		resource.identity.has_certificate == false
	}
}

# For each resource, in order, the first candidate that is in force; shorter than the resources
# where one of them has none. The count is needed: on the register VM an undefined `usable[0]`
# does not end the body.
chosen := [first |
	some resource in input.resources
	usable := [grant.index | some grant in resource.grants; in_force(grant)]
	count(usable) > 0
	first := usable[0]
]

in_force(grant) if {
	grant.login_fits
	stands(grant)
}

stands(grant) if {
	grant.source_fits
	grant.not_before <= input.now
	grant.expires_at > input.now
	exact_enough(grant)
}

exact_enough(_) if input.administrative == false

exact_enough(grant) if grant.wildcard == false
