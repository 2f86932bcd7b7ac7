//! Lists and searches: what the caller may see, page by page, and nothing else.

use std::collections::BTreeSet;

use data_encoding::BASE32_NOPAD;
use strongroom::proto::secret_service_client::SecretServiceClient;
use strongroom::proto::token_service_client::TokenServiceClient;
use strongroom::proto::{
    CreateTokenRequest, ListSecretsRequest, PutSecretRequest, SearchSecretsRequest, TokenOrder,
    UpdateSecretRequest,
};
use tonic::Code;

use super::{Client, Place, metadata, put, request};
use crate::support::hand::Hand;
use crate::support::logins::register;
use crate::support::node::{BACKENDS, Backend};
use crate::support::tokens::bearing;

async fn list(client: &mut Client, prefix: &str) -> Vec<String> {
    let request = ListSecretsRequest { prefix: prefix.to_owned(), ..Default::default() };
    let page = client.list_secrets(request).await.unwrap().into_inner();
    page.items.into_iter().map(|item| item.path).collect()
}

async fn search(client: &mut Client, text: &str, labels: &[(&str, &str)]) -> Vec<String> {
    let labels =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let request = SearchSecretsRequest { text: text.to_owned(), labels, ..Default::default() };
    let page = client.search_secrets(request).await.unwrap().into_inner();
    page.items.into_iter().map(|item| item.path).collect()
}

async fn label(client: &mut Client, path: &str, key: &str, value: &str) {
    let revision = metadata(client, path).await.unwrap().revision;
    let request = UpdateSecretRequest {
        path: path.to_owned(),
        revision,
        set_labels: [(key.to_owned(), value.to_owned())].into(),
        ..Default::default()
    };
    client.update_secret(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_what_the_caller_may_do_something_with_and_nothing_else() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        for path in ["team/a", "team/b", "team/c/d", "team/e"] {
            put(&mut alice, path, b"one", 0).await.unwrap();
        }
        assert_eq!(list(&mut alice, "").await, ["team/a", "team/b", "team/c/d", "team/e"]);
        assert_eq!(list(&mut alice, "team/c").await, ["team/c/d"]);
        assert_eq!(list(&mut p.etl(), "").await, Vec::<String>::new());
        let grant = p.grant("etl", "history", "secrets/team/b").await;
        assert_eq!(list(&mut p.etl(), "").await, ["team/b"]);
        p.grant("etl", "get", "secrets/*/e").await;
        assert_eq!(list(&mut p.etl(), "").await, ["team/b", "team/e"]);
        assert_eq!(search(&mut p.etl(), "team", &[]).await, ["team/b", "team/e"]);
        p.remove(&grant.id).await;
        assert_eq!(list(&mut p.etl(), "").await, ["team/e"]);
        // An administrator administers, and reads no names.
        let mut admin = super::client(&p.f.connect(&p.f.admin).await);
        assert_eq!(list(&mut admin, "").await, Vec::<String>::new());
        label(&mut alice, "team/a", "env", "prod").await;
        label(&mut alice, "team/e", "env", "prod").await;
        label(&mut alice, "team/e", "owner", "e-mail").await;
        assert_eq!(search(&mut alice, "", &[("env", "prod")]).await, ["team/a", "team/e"]);
        assert_eq!(search(&mut alice, "E-MAIL", &[("env", "prod")]).await, ["team/e"]);
        assert_eq!(search(&mut p.etl(), "", &[("env", "prod")]).await, ["team/e"]);
        assert_eq!(search(&mut alice, "nothing", &[]).await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lists_no_more_than_its_scope() {
    let p = Place::new(Backend::Sqlite).await;
    for path in ["team/a", "team/b"] {
        put(&mut p.alice(), path, b"one", 0).await.unwrap();
    }
    let scope = vec!["secrets:secrets.list".to_owned(), "secrets/team/a:secrets.get".to_owned()];
    let order = TokenOrder { scope, ..Default::default() };
    let request = CreateTokenRequest { order: Some(order), ..Default::default() };
    let made = TokenServiceClient::new(p.alice.clone()).create_token(request).await.unwrap();
    let bearer = bearing(&p.alice, &made.into_inner().bearer);
    let mut client = SecretServiceClient::new(bearer);
    let page = client.list_secrets(ListSecretsRequest::default()).await.unwrap().into_inner();
    let names: Vec<_> = page.items.into_iter().map(|item| item.path).collect();
    assert_eq!(names, ["team/a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_where_they_ended_and_their_tokens_tell_no_name() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        let mut wanted = BTreeSet::new();
        for n in 0..12 {
            let path = format!("team/n{n:02}");
            put(&mut alice, &path, b"one", 0).await.unwrap();
            if n % 3 == 0 {
                p.grant("etl", "get", &format!("secrets/{path}")).await;
                wanted.insert(path);
            }
        }
        let mut etl = p.etl();
        let (mut found, mut page_token) = (BTreeSet::new(), String::new());
        loop {
            let request = ListSecretsRequest { page_size: 2, page_token, ..Default::default() };
            let page = etl.list_secrets(request).await.unwrap().into_inner();
            assert!(page.items.len() <= 2);
            found.extend(page.items.into_iter().map(|item| item.path));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
            let upper = page_token.to_uppercase();
            let inside = BASE32_NOPAD.decode(upper.as_bytes()).unwrap_or_default();
            let shown = String::from_utf8_lossy(&inside).into_owned() + &page_token;
            assert!(!shown.contains("team") && !shown.contains("n0"), "{shown}");
        }
        assert_eq!(found, wanted);
        let request = ListSecretsRequest { page_size: 2, ..Default::default() };
        let theirs = alice.list_secrets(request.clone()).await.unwrap().into_inner();
        let page_token = theirs.next_page_token;
        for request in [
            ListSecretsRequest { page_token: page_token.clone(), ..request.clone() },
            ListSecretsRequest { page_size: -1, ..request.clone() },
            ListSecretsRequest { prefix: "team*".into(), ..request.clone() },
        ] {
            let status = etl.list_secrets(request).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
        }
        let narrowed = ListSecretsRequest { page_token, prefix: "team".into(), ..request };
        assert_eq!(alice.list_secrets(narrowed).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_altered_row_hides_itself_alone_from_a_list() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        for path in ["team/a", "team/b", "team/c"] {
            put(&mut p.alice(), path, b"one", 0).await.unwrap();
        }
        let hand = Hand::new(&p.f.parts.location);
        hand.run("UPDATE secrets SET changed_at = changed_at + 1 WHERE path = 'team/b'").await;
        assert_eq!(list(&mut p.alice(), "").await, ["team/a", "team/c"]);
        let head = "UPDATE secret_heads SET changed_at = changed_at + 1 WHERE id = \
                    (SELECT id FROM secrets WHERE path = 'team/c')";
        hand.run(head).await;
        assert_eq!(list(&mut p.alice(), "").await, ["team/a"], "an altered head");
        register(&p.f, "mine", "pipeline", "alice").await;
        let named = PutSecretRequest { owner: "mine".into(), ..request("team/d", b"one", 0) };
        p.alice().put_secret(named).await.unwrap();
        assert_eq!(list(&mut p.alice(), "").await, ["team/a", "team/d"]);
        hand.run("UPDATE identities SET changed_at = changed_at + 1 WHERE name = 'mine'").await;
        assert_eq!(list(&mut p.alice(), "").await, ["team/a"], "an altered owner");
        assert_eq!(search(&mut p.alice(), "team", &[]).await, ["team/a"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_page_tells_of_no_name_that_is_hidden_behind_it() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        for path in ["team/a", "team/b", "team/c"] {
            put(&mut p.alice(), path, b"one", 0).await.unwrap();
        }
        p.grant("etl", "get", "secrets/team/a").await;
        let request = ListSecretsRequest { page_size: 1, ..Default::default() };
        let page = p.etl().list_secrets(request.clone()).await.unwrap().into_inner();
        assert_eq!((page.items.len(), page.next_page_token.as_str()), (1, ""));
        p.grant("etl", "get", "secrets/team/c").await;
        let page = p.etl().list_secrets(request.clone()).await.unwrap().into_inner();
        let next = ListSecretsRequest { page_token: page.next_page_token, ..request };
        let page = p.etl().list_secrets(next).await.unwrap().into_inner();
        assert_eq!((page.items[0].path.as_str(), page.next_page_token.as_str()), ("team/c", ""));
    }
}
