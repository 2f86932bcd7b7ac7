//! `IssuerService`.

use tonic::{Request, Response, Status};

use super::accept::Gate;
use super::fields::{optional, span};
use super::status::status;
use super::tls::PeerInfo;
use super::wrapping;
use crate::auth::oidc::Federation;
use crate::engines::issuers::{
    AddIssuer, AddRule, Binds, Condition, DescribedIssuer, DescribedRule, IssuerDefinition,
    KeySource, ListIssuers, ListRules, LoginRequest as Attempt, Provider, RemoveIssuer, RemoveRule,
    Review, RuleDefinition, Scalar, Session, ShowIssuer, Template, TestToken, Tested, Trial,
    UpdateIssuer,
};
use crate::error::{Error, Result};
use crate::proto::issuer_service_server::IssuerService;
use crate::proto::{
    self, AddIssuerRequest, AddIssuerResponse, AddRuleRequest, AddRuleResponse, ClaimRule,
    ClaimValue, GetIssuerRequest, GetIssuerResponse, Issuer, IssuerRule, IssuerSettings,
    ListIssuersRequest, ListIssuersResponse, ListProvidersRequest, ListProvidersResponse,
    ListRulesRequest, ListRulesResponse, LoginRequest, LoginResponse, RemoveIssuerRequest,
    RemoveIssuerResponse, RemoveRuleRequest, RemoveRuleResponse, RuleTemplate, RuleTrial,
    TestTokenRequest, TestTokenResponse, TokenReview, UpdateIssuerRequest, UpdateIssuerResponse,
    add_rule_request, claim_value, issuer_rule, issuer_settings,
};
use crate::types::{ObjectId, SecretBytes};

/// Serves issuers.
#[derive(Debug, Clone)]
pub(super) struct Issuers {
    pub(super) gate: Gate,
    pub(super) federation: Federation,
    /// Tokens that one identity may have in force.
    pub(super) live: u32,
}

#[tonic::async_trait]
impl IssuerService for Issuers {
    async fn add_issuer(
        &self,
        request: Request<AddIssuerRequest>,
    ) -> Result<Response<AddIssuerResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let AddIssuerRequest { name, url, settings, reviewer_credential } = request;
        let reviewer = secret(reviewer_credential);
        let definition = self.gate.read(&ctx, definition(settings))?;
        let name = self.gate.read(&ctx, name.parse())?;
        let op = AddIssuer { name, url, definition, reviewer };
        let added = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(AddIssuerResponse { issuer: Some(show(added)) }))
    }

    async fn get_issuer(
        &self,
        request: Request<GetIssuerRequest>,
    ) -> Result<Response<GetIssuerResponse>, Status> {
        let (ctx, GetIssuerRequest { name }) = self.gate.accept(request).await?;
        let op = ShowIssuer { name: self.gate.read(&ctx, name.parse())? };
        let found = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(GetIssuerResponse { issuer: Some(show(found)) }))
    }

    async fn list_issuers(
        &self,
        request: Request<ListIssuersRequest>,
    ) -> Result<Response<ListIssuersResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let ListIssuersRequest { page_size, page_token } = request;
        let op = ListIssuers { page_size, page_token };
        let (listed, next_page_token) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let issuers = listed.into_iter().map(show).collect();
        Ok(Response::new(ListIssuersResponse { issuers, next_page_token }))
    }

    async fn update_issuer(
        &self,
        request: Request<UpdateIssuerRequest>,
    ) -> Result<Response<UpdateIssuerResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let UpdateIssuerRequest { name, version, settings, end_sessions, reviewer_credential } =
            request;
        let reviewer = secret(reviewer_credential);
        let definition = self.gate.read(&ctx, definition(settings))?;
        let name = self.gate.read(&ctx, name.parse())?;
        let version = (version != 0).then_some(version);
        let op = UpdateIssuer { name, version, definition, reviewer, end_sessions };
        let changed = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(UpdateIssuerResponse { issuer: Some(show(changed)) }))
    }

    async fn remove_issuer(
        &self,
        request: Request<RemoveIssuerRequest>,
    ) -> Result<Response<RemoveIssuerResponse>, Status> {
        let (ctx, RemoveIssuerRequest { name, reason }) = self.gate.accept(request).await?;
        let op = RemoveIssuer { name: self.gate.read(&ctx, name.parse())?, reason };
        let was = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(RemoveIssuerResponse { issuer: Some(show(was)) }))
    }

    async fn add_rule(
        &self,
        request: Request<AddRuleRequest>,
    ) -> Result<Response<AddRuleResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, rule(request))?;
        let added = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(AddRuleResponse { rule: Some(show_rule(added)) }))
    }

    async fn list_rules(
        &self,
        request: Request<ListRulesRequest>,
    ) -> Result<Response<ListRulesResponse>, Status> {
        let (ctx, request) = self.gate.accept(request).await?;
        let ListRulesRequest { issuer, page_size, page_token } = request;
        let issuer = self.gate.read(&ctx, issuer.parse())?;
        let op = ListRules { issuer, page_size, page_token };
        let (listed, next_page_token) = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let rules = listed.into_iter().map(show_rule).collect();
        Ok(Response::new(ListRulesResponse { rules, next_page_token }))
    }

    async fn remove_rule(
        &self,
        request: Request<RemoveRuleRequest>,
    ) -> Result<Response<RemoveRuleResponse>, Status> {
        let (ctx, RemoveRuleRequest { issuer, id, reason }) = self.gate.accept(request).await?;
        let issuer = self.gate.read(&ctx, issuer.parse())?;
        let id: ObjectId = self.gate.read(&ctx, id.parse())?;
        let op = RemoveRule { issuer, id, reason };
        let was = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(RemoveRuleResponse { rule: Some(show_rule(was)) }))
    }

    async fn test_token(
        &self,
        request: Request<TestTokenRequest>,
    ) -> Result<Response<TestTokenResponse>, Status> {
        let (ctx, TestTokenRequest { token, identity }) = self.gate.accept(request).await?;
        let op = TestToken {
            keys: self.federation.keys().clone(),
            token: SecretBytes::new(token.into_bytes()),
            name: self.gate.read(&ctx, optional(&identity))?,
        };
        let tested = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(show_tested(tested)))
    }

    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<LoginResponse>, Status> {
        let source = request.extensions().get::<PeerInfo>();
        let source = source.map(|peer| peer.address.ip().to_canonical());
        let plain = wrapping::refuse(request.metadata().as_ref());
        let LoginRequest { identity, token, ttl_s, proof } = request.into_inner();
        let [token, proof] = [token, proof].map(|secret| SecretBytes::new(secret.into_bytes()));
        let attempt = async {
            plain?;
            let text = |secret| std::str::from_utf8(secret).map_err(Error::internal);
            let (token, proof) = (text(token.expose())?, text(proof.expose())?);
            let (name, ttl) = (identity.parse()?, span("ttl_s", ttl_s)?);
            let attempt = Attempt { name: &name, token, proof, ttl, live: self.live };
            self.federation.login(&self.gate.vault, source, &attempt).await
        };
        let session = attempt.await.and_then(show_session);
        session.map(Response::new).map_err(|error| status(&error, None))
    }

    async fn list_providers(
        &self,
        _: Request<ListProvidersRequest>,
    ) -> Result<Response<ListProvidersResponse>, Status> {
        let listed = self.federation.providers(&self.gate.vault).await;
        let listed = listed.map_err(|error| status(&error, None))?;
        let providers = listed.into_iter().map(show_provider).collect();
        Ok(Response::new(ListProvidersResponse { providers }))
    }
}

fn show_provider(provider: Provider) -> proto::Provider {
    let Provider { name, url, client_id, scopes, device, ca_pem } = provider;
    let (name, device_codes) = (name.to_string(), device);
    proto::Provider { name, url, client_id, scopes, device_codes, ca_pem }
}

/// Takes a credential; none where it is empty.
fn secret(text: String) -> Option<SecretBytes> {
    Some(SecretBytes::new(text.into_bytes())).filter(|secret| !secret.expose().is_empty())
}

fn definition(settings: Option<IssuerSettings>) -> Result<IssuerDefinition> {
    let settings = settings.ok_or_else(|| Error::invalid("say what is known of the issuer"))?;
    let keys = match settings.keys {
        Some(issuer_settings::Keys::JwksUrl(url)) => KeySource::Url(url),
        Some(issuer_settings::Keys::Jwks(keys)) => KeySource::File(keys),
        Some(issuer_settings::Keys::Discovery(_)) | None => KeySource::Discovery,
    };
    let review = settings.token_review;
    Ok(IssuerDefinition {
        preset: settings.preset,
        audience: settings.audience,
        algorithms: settings.algorithms,
        replay: settings.replay,
        keys,
        ca_pem: settings.ca_pem,
        private: settings.private_network,
        review: review.map(|TokenReview { url, ca_pem }| Review { url, ca_pem }),
        scopes: settings.scopes,
        device: settings.device_codes,
    })
}

fn rule(request: AddRuleRequest) -> Result<AddRule> {
    let (binds, template) = match request.yields {
        Some(add_rule_request::Yields::Identity(name)) => (Binds::Identity(name.parse()?), None),
        Some(add_rule_request::Yields::Template(one)) => {
            let count = |what: &str, number: i64| {
                u64::try_from(number)
                    .map_err(|_negative| Error::invalid(format!("{what} must not be negative")))
            };
            let template = Template {
                most: count("most", one.most)?,
                lasts_s: count("lasts_s", one.lasts_s)?,
                name: one.name,
                kind: one.kind,
                owner_group: one.owner_group,
                group: one.group,
                tier: one.tier,
            };
            (Binds::Template, Some(template))
        }
        None => {
            return Err(Error::invalid("name the identity that the rule yields, or a template"));
        }
    };
    let scalar = |value: ClaimValue| match value.value {
        Some(claim_value::Value::Text(text)) => Ok(Scalar::Text(text)),
        Some(claim_value::Value::Number(number)) => Ok(Scalar::Number(number)),
        Some(claim_value::Value::Flag(flag)) => Ok(Scalar::Flag(flag)),
        None => Err(Error::invalid("a claim's value is text, a number, true or false")),
    };
    let condition = |ClaimRule { claim, values }: ClaimRule| {
        let any = values.into_iter().map(scalar).collect::<Result<_>>()?;
        Ok(Condition { claim, any })
    };
    let seconds = |what, s| Ok::<_, Error>(span(what, s)?.map_or(0, |span| span.as_secs()));
    Ok(AddRule {
        issuer: request.issuer.parse()?,
        binds,
        definition: RuleDefinition {
            claims: request.claims.into_iter().map(condition).collect::<Result<_>>()?,
            template,
            ttl_s: seconds("ttl_s", request.ttl_s)?,
            max_ttl_s: seconds("max_ttl_s", request.max_ttl_s)?,
        },
        dry_run: request.dry_run,
    })
}

fn show(described: DescribedIssuer) -> Issuer {
    let DescribedIssuer { issuer, definition, rules, created_by, changed_by } = described;
    Issuer {
        id: issuer.row.id.to_string(),
        name: issuer.row.name.to_string(),
        url: issuer.row.url,
        settings: Some(IssuerSettings {
            preset: definition.preset,
            audience: definition.audience,
            algorithms: definition.algorithms,
            replay: definition.replay,
            keys: Some(match definition.keys {
                KeySource::Discovery => issuer_settings::Keys::Discovery(true),
                KeySource::Url(url) => issuer_settings::Keys::JwksUrl(url),
                KeySource::File(keys) => issuer_settings::Keys::Jwks(keys),
            }),
            ca_pem: definition.ca_pem,
            private_network: definition.private,
            token_review: definition
                .review
                .map(|it| TokenReview { url: it.url, ca_pem: it.ca_pem }),
            scopes: definition.scopes,
            device_codes: definition.device,
        }),
        rules,
        version: issuer.version,
        created_at_ms: issuer.row.created_at.0,
        created_by,
        changed_at_ms: issuer.row.changed_at.0,
        changed_by,
    }
}

fn show_rule(described: DescribedRule) -> IssuerRule {
    let DescribedRule { rule, definition, issuer, identity, sentence, created_by } = described;
    let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    let value = |scalar| ClaimValue {
        value: Some(match scalar {
            Scalar::Text(text) => claim_value::Value::Text(text),
            Scalar::Number(number) => claim_value::Value::Number(number),
            Scalar::Flag(flag) => claim_value::Value::Flag(flag),
        }),
    };
    let claims = definition.claims.into_iter().map(|Condition { claim, any }| ClaimRule {
        claim,
        values: any.into_iter().map(value).collect(),
    });
    let template = definition.template.map(|one| {
        issuer_rule::Yields::Template(RuleTemplate {
            most: signed(one.most),
            lasts_s: signed(one.lasts_s),
            name: one.name,
            kind: one.kind,
            owner_group: one.owner_group,
            group: one.group,
            tier: one.tier,
        })
    });
    let named = identity.map(|name| issuer_rule::Yields::Identity(name.to_string()));
    IssuerRule {
        id: rule.id.to_string(),
        issuer: issuer.to_string(),
        yields: named.or(template),
        claims: claims.collect(),
        ttl_s: signed(definition.ttl_s),
        max_ttl_s: signed(definition.max_ttl_s),
        sentence,
        created_at_ms: rule.created_at.0,
        created_by,
    }
}

fn show_tested(tested: Tested) -> TestTokenResponse {
    let trial = |Trial { rule, objection }| RuleTrial {
        rule: Some(show_rule(rule)),
        matches: objection.is_none(),
        objection: objection.unwrap_or_default(),
    };
    TestTokenResponse {
        issuer: tested.issuer.map(|name| name.to_string()).unwrap_or_default(),
        problem: tested.problem.unwrap_or_default(),
        trials: tested.trials.into_iter().map(trial).collect(),
        more: tested.more,
    }
}

fn show_session(session: Session) -> Result<LoginResponse> {
    let Session { row, bearer, single_use, registered } = session;
    Ok(LoginResponse {
        bearer: std::str::from_utf8(bearer.expose()).map_err(Error::internal)?.to_owned(),
        accessor: row.id.to_string(),
        expires_at_ms: row.expires_at.0,
        max_expires_at_ms: row.max_expires_at.0,
        single_use,
        registered,
    })
}
