//! Requests of `EnrolmentService`.

use prost::Message as _;
use strongroom::proto::{
    CreateEnrolmentRequest, JoinRequest, ListEnrolmentsRequest, RenewLoginRequest,
    RevokeEnrolmentRequest,
};

use super::requests::{Things, unknown};
use crate::support::node::csr;

/// The id of an enrolment that there is not.
const NO_ENROLMENT: &str = "018f0000-0000-7000-8000-000000000000";

pub(super) fn request(method: &str, of: &Things) -> Vec<u8> {
    let identity = of.machine.clone();
    match method {
        "CreateEnrolment" => {
            CreateEnrolmentRequest { identity, ..Default::default() }.encode_to_vec()
        }
        "ListEnrolments" => {
            ListEnrolmentsRequest { identity, ..Default::default() }.encode_to_vec()
        }
        "RevokeEnrolment" => {
            let (id, reason) = (NO_ENROLMENT.to_owned(), String::new());
            RevokeEnrolmentRequest { id, reason }.encode_to_vec()
        }
        "Join" => {
            let (token, csr_pem) = ("none".to_owned(), csr().1);
            JoinRequest { token, csr_pem }.encode_to_vec()
        }
        "RenewLogin" => RenewLoginRequest { csr_pem: csr().1 }.encode_to_vec(),
        _ => unknown(method),
    }
}
