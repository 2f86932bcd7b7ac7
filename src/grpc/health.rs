//! `grpc.health.v1.Health`: whether the node serves, as a whole and for each service.
//!
//! It is answered always, also by a node that answers nothing else.

use std::time::Duration;

use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::types::{Standing, State, TaskGroup};

/// How often it is looked whether the node still hears from its store: nobody tells that.
const LOOK: Duration = Duration::from_secs(1);

/// The node as a whole.
const WHOLE: &str = "";

/// Keeps health true to whether the node serves, until the tasks are told to stop. Then those who
/// watch it are told, and their streams end.
#[derive(Debug)]
pub(super) struct Health {
    reporter: HealthReporter,
    services: Vec<&'static str>,
    /// What was said last: who watches is told of changes alone.
    said: Option<ServingStatus>,
}

impl Health {
    pub(super) fn new(reporter: HealthReporter) -> Self {
        Self { reporter, services: vec![WHOLE], said: None }
    }

    /// Speaks for one more service.
    pub(super) fn with<S: NamedService>(mut self, _: &S) -> Self {
        self.services.push(S::NAME);
        self
    }

    /// Says how it is now, and follows from then on.
    pub(super) async fn follow(mut self, standing: &Standing, tasks: &TaskGroup) {
        let mut states = standing.watch();
        let state = states.borrow_and_update().state();
        self.say(&state).await;
        let group = tasks.clone();
        drop(tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = group.stopping() => break,
                    changed = states.changed() => if changed.is_err() { break },
                    () = tokio::time::sleep(LOOK) => {}
                }
                let state = states.borrow_and_update().state();
                self.say(&state).await;
            }
            self.say(&State::Stopping).await;
            for service in self.services {
                self.reporter.clear_service_status(service).await;
            }
        }));
    }

    async fn say(&mut self, state: &State) {
        let status = match state {
            State::Serving => ServingStatus::Serving,
            State::Sealed(_) | State::Held(_) | State::Unheard | State::Stopping => {
                ServingStatus::NotServing
            }
        };
        if self.said.replace(status) == Some(status) {
            return;
        }
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
