//! What goes over the wire: the messages, clients and servers that `build.rs` makes from
//! `proto/strongroom/v1/`, and the descriptors that the reflection service shows.
//!
//! Knows no room. Messages with fields marked `secret` print `[REDACTED]` for them.

/// The encoded `FileDescriptorSet`, custom options and comments included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/strongroom.v1.bin"));

#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::default_trait_access,
    clippy::doc_markdown,
    clippy::too_many_lines,
    unused_qualifications,
    reason = "generated code"
)]
mod v1 {
    include!(concat!(env!("OUT_DIR"), "/strongroom.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/redacted.rs"));
}

pub use v1::*;

/// The metadata that asks for an answer to be wrapped: how long, in seconds.
pub const WRAP_TTL: &str = "strongroom-wrap-ttl";
/// The metadata that names who alone may open it.
pub const WRAP_FOR: &str = "strongroom-wrap-for";

/// An answer that can be wrapped; `build.rs` writes how, from the marks in the protos.
pub trait Wrappable: prost::Message {
    /// The message's full name.
    const MESSAGE: &'static str;

    /// Empties every field that carries or holds a secret, and says what stands in their place.
    fn withhold(&mut self, wrapped: Option<Wrapped>);
}

/// What went wrong, as `google.rpc.Status` in the trailer `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RpcStatus {
    /// The gRPC code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// The sentence for people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// Details; an [`ErrorInfo`] is among them.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<prost_types::Any>,
}

/// Why it went wrong, for machines: `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ErrorInfo {
    /// The reason, as [`crate::Error::reason`] names it.
    #[prost(string, tag = "1")]
    pub reason: String,
    /// Whose reasons these are: [`ErrorInfo::DOMAIN`].
    #[prost(string, tag = "2")]
    pub domain: String,
    /// More about it, nothing secret: `request_id` names the request in the record and the log.
    #[prost(btree_map = "string, string", tag = "3")]
    pub metadata: std::collections::BTreeMap<String, String>,
}

impl ErrorInfo {
    /// The domain of our reasons.
    pub const DOMAIN: &'static str = "strongroom";
    /// The type's name in an `Any`.
    pub const TYPE_URL: &'static str = "type.googleapis.com/google.rpc.ErrorInfo";
    /// The request's id in the metadata.
    pub const REQUEST_ID: &'static str = "request_id";
    /// Of `STEP_UP_REQUIRED`: the kinds of factors of which one is enough, joined by commas.
    pub const FACTORS: &'static str = "factors";
    /// Of `STEP_UP_REQUIRED`: how long ago it may have been proven at the most, in seconds.
    pub const WITHIN_S: &'static str = "within_s";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message as _;
    use prost_reflect::{
        DescriptorPool, DynamicMessage, ExtensionDescriptor, Kind, MessageDescriptor, Value,
    };

    use super::*;
    use crate::types::VERBS;

    include!(concat!(env!("OUT_DIR"), "/debug_of.rs"));

    const CANARY: &str = "canary-6f1d";

    fn pool() -> DescriptorPool {
        DescriptorPool::decode(DESCRIPTORS).unwrap()
    }

    #[test]
    fn no_field_marked_secret_reaches_debug() {
        let pool = pool();
        let secret = pool.get_extension_by_name("strongroom.v1.secret").unwrap();
        let mut proven = Vec::new();
        let ours = |m: &MessageDescriptor| m.package_name() == "strongroom.v1" && !m.is_map_entry();
        for message in pool.all_messages().filter(ours) {
            for field in message.fields() {
                let mut filled = DynamicMessage::new(message.clone());
                let value = if field.kind() == Kind::Bytes {
                    Value::Bytes(CANARY.as_bytes().to_vec().into())
                } else if field.kind() == Kind::String {
                    Value::String(CANARY.into())
                } else {
                    continue;
                };
                let value = if field.is_list() { Value::List(vec![value]) } else { value };
                filled.set_field(&field, value);
                let shown = debug_of(message.full_name(), &filled.encode_to_vec()).unwrap();
                let raw_bytes = format!("{:?}", CANARY.as_bytes());
                let visible = shown.contains(CANARY) || shown.contains(&raw_bytes);
                let marked = field.options().get_extension(&secret).as_bool().unwrap();
                if marked {
                    assert!(!visible && shown.contains("[REDACTED]"), "{}", field.full_name());
                    proven.push(field.full_name().to_owned());
                }
            }
        }
        assert_eq!(
            proven,
            [
                "strongroom.v1.Wrapped.handle",
                "strongroom.v1.UnwrapRequest.handle",
                "strongroom.v1.UnwrapResponse.answer",
                "strongroom.v1.PutConnectionRequest.password",
                "strongroom.v1.IssueCredentialsResponse.password",
                "strongroom.v1.IssueCredentialsResponse.dsn",
                "strongroom.v1.IssueCredentialsResponse.lease_handle",
                "strongroom.v1.CreateEnrolmentResponse.join_token",
                "strongroom.v1.JoinRequest.token",
                "strongroom.v1.InviteFactorResponse.invitation",
                "strongroom.v1.EnrolFactorRequest.invitation",
                "strongroom.v1.EnrolFactorResponse.secret",
                "strongroom.v1.EnrolFactorResponse.uri",
                "strongroom.v1.ConfirmFactorRequest.code",
                "strongroom.v1.MakeRecoveryCodesResponse.codes",
                "strongroom.v1.VerifyFactorRequest.code",
                "strongroom.v1.AddIssuerRequest.reviewer_credential",
                "strongroom.v1.UpdateIssuerRequest.reviewer_credential",
                "strongroom.v1.TestTokenRequest.token",
                "strongroom.v1.LoginRequest.token",
                "strongroom.v1.LoginRequest.proof",
                "strongroom.v1.LoginResponse.bearer",
                "strongroom.v1.EncryptItem.plaintext",
                "strongroom.v1.Decrypted.plaintext",
                "strongroom.v1.EncryptStreamRequest.data",
                "strongroom.v1.DecryptStreamResponse.data",
                "strongroom.v1.MakeDataKeyResponse.plaintext",
                "strongroom.v1.MacItem.message",
                "strongroom.v1.VerifyMacItem.message",
                "strongroom.v1.SignItem.message",
                "strongroom.v1.VerifyItem.message",
                "strongroom.v1.GetRandomResponse.data",
                "strongroom.v1.IssueCertificateResponse.private_key_pem",
                "strongroom.v1.PutSecretRequest.value",
                "strongroom.v1.GetSecretResponse.value",
                "strongroom.v1.CreateTokenResponse.bearer",
                "strongroom.v1.MintTokenResponse.bearer",
            ],
            "a new secret field belongs into this list"
        );
    }

    /// Tells whether a message carries a secret, or holds messages that do.
    fn holds_secret(message: &MessageDescriptor, secret: &ExtensionDescriptor) -> bool {
        message.fields().any(|field| {
            field.options().get_extension(secret).as_bool().unwrap()
                || field.kind().as_message().is_some_and(|part| holds_secret(part, secret))
        })
    }

    #[test]
    fn every_answer_that_holds_a_secret_can_be_wrapped_or_is_known_not_to() {
        let pool = pool();
        let secret = pool.get_extension_by_name("strongroom.v1.secret").unwrap();
        let mut plain = Vec::new();
        for service in pool.services() {
            for method in service.methods() {
                let output = method.output();
                let wrappable = output.get_field_by_name("wrapped").is_some();
                if !wrappable && holds_secret(&output, &secret) {
                    plain.push(method.name().to_owned());
                }
            }
        }
        plain.sort();
        assert_eq!(
            plain,
            [
                // A stream.
                "DecryptStream",
                // Who enrols a factor has it at hand, and proves it next.
                "EnrolFactor",
                // Whoever logs in asks by nothing yet, and needs the session itself.
                "Login",
                // They are for who asks alone.
                "MakeRecoveryCodes",
                // It was wrapped.
                "Unwrap",
            ]
        );
    }

    #[test]
    fn a_wrapped_answer_keeps_none_of_its_secrets() {
        let mut answer = IssueCredentialsResponse {
            password: CANARY.into(),
            dsn: CANARY.into(),
            lease_handle: CANARY.into(),
            lease_id: "1".into(),
            ..Default::default()
        };
        answer.withhold(Some(Wrapped { accessor: "2".into(), ..Default::default() }));
        let text = String::from_utf8_lossy(&answer.encode_to_vec()).into_owned();
        assert!(!text.contains(CANARY) && answer.lease_id == "1" && answer.wrapped.is_some());
        let one = Decrypted { plaintext: CANARY.into(), ..Default::default() };
        let mut answer = DecryptResponse { results: vec![one], ..Default::default() };
        answer.withhold(None);
        assert!(answer.results.is_empty());
    }

    #[test]
    fn a_field_that_sounds_secret_is_marked() {
        let pool = pool();
        let secret = pool.get_extension_by_name("strongroom.v1.secret").unwrap();
        for message in pool.all_messages().filter(|m| m.package_name() == "strongroom.v1") {
            for field in message.fields() {
                let name = field.name();
                let sounds = ["password", "private", "dsn", "pin", "secret"]
                    .iter()
                    .any(|word| name.split('_').any(|part| part == *word));
                let marked = field.options().get_extension(&secret).as_bool().unwrap();
                // Where an address is, not what it is.
                let sounds = sounds && name != "private_network";
                assert!(marked || !sounds, "{}", field.full_name());
            }
        }
    }

    #[test]
    fn every_rpc_carries_the_action_of_its_verb() {
        let pool = pool();
        let action = pool.get_extension_by_name("strongroom.v1.action").unwrap();
        let administrative = pool.get_extension_by_name("strongroom.v1.administrative").unwrap();
        let mut rpcs = BTreeMap::new();
        for service in pool.services() {
            for method in service.methods() {
                let options = method.options();
                rpcs.insert(
                    format!("{}/{}", service.name(), method.name()),
                    (
                        options.get_extension(&action).as_str().unwrap().to_owned(),
                        options.get_extension(&administrative).as_bool().unwrap(),
                    ),
                );
            }
        }
        let verbs: BTreeMap<_, _> = VERBS
            .iter()
            .map(|verb| (verb.rpc.to_owned(), (verb.action.to_owned(), verb.administrative)))
            .collect();
        assert_eq!(rpcs, verbs);
    }

    #[test]
    fn every_message_and_field_is_documented() {
        let pool = pool();
        let mut bare = Vec::new();
        for file in pool.files().filter(|file| file.package_name() == "strongroom.v1") {
            let proto = file.file_descriptor_proto();
            let documented: Vec<_> = proto
                .source_code_info
                .iter()
                .flat_map(|info| &info.location)
                .filter(|location| location.leading_comments.is_some())
                .map(|location| location.path.clone())
                .collect();
            for message in file.messages() {
                let mut paths = vec![message.path().to_vec()];
                paths.extend(message.fields().map(|field| field.path().to_vec()));
                bare.extend(
                    paths
                        .into_iter()
                        .filter(|path| !documented.contains(path))
                        .map(|path| format!("{} {path:?}", message.full_name())),
                );
            }
            for service in file.services() {
                let mut paths = vec![service.path().to_vec()];
                paths.extend(service.methods().map(|method| method.path().to_vec()));
                bare.extend(
                    paths
                        .into_iter()
                        .filter(|path| !documented.contains(path))
                        .map(|path| format!("{} {path:?}", service.full_name())),
                );
            }
        }
        assert_eq!(bare, Vec::<String>::new());
    }
}
