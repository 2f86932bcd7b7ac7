//! Requests of `IssuerService`.

use prost::Message as _;
use strongroom::proto::{
    AddIssuerRequest, AddRuleRequest, ClaimRule, ClaimValue, GetIssuerRequest, IssuerSettings,
    ListIssuersRequest, ListProvidersRequest, ListRulesRequest, LoginRequest, RemoveIssuerRequest,
    RemoveRuleRequest, TestTokenRequest, UpdateIssuerRequest, add_rule_request, claim_value,
    issuer_settings,
};

use super::requests::{Things, unknown};

const NAME: &str = "cluster";
/// The id of a rule that there is not.
const NO_RULE: &str = "018f0000-0000-7000-8000-000000000000";
/// RFC 8037, appendix A.2.
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a",
    "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn settings() -> IssuerSettings {
    IssuerSettings {
        audience: "vault.test".into(),
        algorithms: vec!["EdDSA".into()],
        keys: Some(issuer_settings::Keys::Jwks(KEYS.into())),
        ..Default::default()
    }
}

pub(super) fn request(method: &str, of: &Things) -> Vec<u8> {
    let (name, issuer) = (NAME.to_owned(), NAME.to_owned());
    match method {
        "AddIssuer" => {
            let url = "https://issuer.example.org".to_owned();
            AddIssuerRequest { name, url, settings: Some(settings()), ..Default::default() }
                .encode_to_vec()
        }
        "GetIssuer" => GetIssuerRequest { name }.encode_to_vec(),
        "ListIssuers" => ListIssuersRequest::default().encode_to_vec(),
        "UpdateIssuer" => {
            UpdateIssuerRequest { name, settings: Some(settings()), ..Default::default() }
                .encode_to_vec()
        }
        "RemoveIssuer" => RemoveIssuerRequest { name, reason: String::new() }.encode_to_vec(),
        "AddRule" => {
            let value = Some(claim_value::Value::Text("somebody".into()));
            AddRuleRequest {
                issuer,
                yields: Some(add_rule_request::Yields::Identity(of.machine.clone())),
                claims: vec![ClaimRule { claim: "sub".into(), values: vec![ClaimValue { value }] }],
                ..Default::default()
            }
            .encode_to_vec()
        }
        "ListRules" => ListRulesRequest { issuer, ..Default::default() }.encode_to_vec(),
        "RemoveRule" => {
            let (id, reason) = (NO_RULE.to_owned(), String::new());
            RemoveRuleRequest { issuer, id, reason }.encode_to_vec()
        }
        "TestToken" => {
            let identity = of.machine.clone();
            TestTokenRequest { token: "none".into(), identity }.encode_to_vec()
        }
        "Login" => {
            let (identity, token) = (of.machine.clone(), "none".to_owned());
            LoginRequest { identity, token, ..Default::default() }.encode_to_vec()
        }
        "ListProviders" => ListProvidersRequest {}.encode_to_vec(),
        _ => unknown(method),
    }
}
