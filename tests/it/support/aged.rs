//! A real installation with people whose accounts, logins and factors are two days old: what somebody
//! approves stands on nothing younger.
//!
//! It is founded in this process, by a clock that is behind, and handed to the program, whose clock is
//! right.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use strongroom::hsm::Pkcs11Hsm;
use strongroom::proto::group_service_client::GroupServiceClient;
use strongroom::proto::identity_service_client::IdentityServiceClient;
use strongroom::proto::{AddMemberRequest, CreateIdentityRequest};
use tonic::transport::Channel;

use super::factors::{App, step_up};
use super::logins::{login_for, registration};
use super::node::{Backend, Fixture};
use super::program::{Installation, Person, text};
use super::softhsm::Token;

const AGE: Duration = Duration::from_hours(48);
const LASTS: Duration = Duration::from_hours(20 * 24);

/// The installation, which is not served yet.
pub(crate) struct Aged {
    pub(crate) real: Installation,
    pub(crate) people: People,
}

/// Its administrators, and what is shown by their authenticators.
pub(crate) struct People {
    dir: PathBuf,
    f: Fixture,
    apps: BTreeMap<String, App>,
}

impl Aged {
    /// Founds it, with administrators who were made by another one: each by name, and of a person.
    pub(crate) async fn new(token: &Token, backend: Backend, people: &[(&str, &str)]) -> Self {
        let hsm = Pkcs11Hsm::open(&token.config()).unwrap();
        let mut f = Fixture::aged(backend, Arc::new(hsm), token.pin.clone(), AGE).await;
        let admin = f.connect(&f.admin).await;
        let (mut apps, mut logins) = (BTreeMap::new(), Vec::new());
        for (name, person) in people {
            register(&admin, name, person).await;
            let login = login_for(&f, name, Some(LASTS)).await;
            let channel = f.connect(&login).await;
            apps.insert((*name).to_owned(), step_up(&f, &channel, name, None).await);
            administers(&admin, name).await;
            logins.push((*name, login));
        }
        f.node.take().unwrap().stop().await.unwrap();
        f.clock.advance(AGE);
        let real = Installation::of(&f, token);
        let people = People { dir: real.dir.path().to_owned(), f, apps };
        for (name, login) in logins {
            let Person { certificate, key } = people.person(name);
            fs::write(certificate, login.certificate_pem).unwrap();
            fs::write(key, login.key_pem).unwrap();
        }
        Self { real, people }
    }
}

impl People {
    /// One of them.
    pub(crate) fn person(&self, name: &str) -> Person {
        let at = |end: &str| self.dir.join(format!("{name}.{end}"));
        Person { certificate: at("pem"), key: at("key") }
    }

    /// A file with the code that somebody's authenticator shows.
    pub(crate) fn code(&self, name: &str) -> PathBuf {
        let path = self.dir.join("code");
        fs::write(&path, self.apps[name].code(&self.f, 0)).unwrap();
        path
    }
}

/// The ceremony that somebody opened who accepted a store, as they are told of it in JSON.
pub(crate) fn ceremony(said: &Output) -> String {
    assert!(said.status.success(), "{}", text(&said.stderr));
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    let message = said["message"].as_str().unwrap();
    assert!(message.contains("needs 1 more"), "{message}");
    message.split(' ').nth(1).unwrap().to_owned()
}

async fn register(by: &Channel, name: &str, person: &str) {
    let human = registration(name, "human", "");
    let human = CreateIdentityRequest { person: person.to_owned(), ..human };
    IdentityServiceClient::new(by.clone()).create_identity(human).await.unwrap();
}

async fn administers(by: &Channel, name: &str) {
    let (group, identity) = ("administrators".to_owned(), name.to_owned());
    let request = AddMemberRequest { group, identity };
    GroupServiceClient::new(by.clone()).add_member(request).await.unwrap();
}
