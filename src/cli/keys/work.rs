//! What is done with a key.

use std::path::Path;

use data_encoding::BASE64;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::args::{Check, Message, Piece};
use crate::cli::failure::{Exit, Failure, Outcome};
use crate::cli::files::{check_new, read_bytes, write_private_bytes, write_public};
use crate::cli::output::{Format, fields, json_text, note, print, print_bytes};
use crate::cli::session::{Session, must};
use crate::cli::wraps::WrapArgs;
use crate::proto::key_service_client::KeyServiceClient as Client;
use crate::proto::{
    DecryptItem, DecryptRequest, DecryptResponse, EncryptItem, EncryptRequest, GetRandomRequest,
    GetRandomResponse, ItemFault, MacItem, MacRequest, MakeDataKeyRequest, MakeDataKeyResponse,
    RewrapRequest, SignItem, SignRequest, UsedKey, Verified, VerifyItem, VerifyMacItem,
    VerifyMacRequest, VerifyRequest,
};

pub(super) async fn encrypt(session: &Session, piece: &Piece) -> Outcome {
    let plaintext = read(piece)?;
    let item = EncryptItem {
        plaintext: plaintext.to_vec(),
        associated_data: piece.aad.clone().into_bytes(),
    };
    let request = EncryptRequest { name: piece.name.clone(), items: vec![item] };
    let mut done = session
        .call(request, async |wire, request| Client::new(wire).encrypt(request).await)
        .await?;
    let one = must(done.results.pop())?;
    sound(one.fault)?;
    give(session, piece.out.as_deref(), "ciphertext", &one.ciphertext, done.used)
}

pub(super) async fn rewrap(session: &Session, piece: &Piece) -> Outcome {
    let request = RewrapRequest { name: piece.name.clone(), items: vec![sealed(piece)?] };
    let mut done = session
        .call(request, async |wire, request| Client::new(wire).rewrap(request).await)
        .await?;
    let one = must(done.results.pop())?;
    sound(one.fault)?;
    give(session, piece.out.as_deref(), "ciphertext", &one.ciphertext, done.used)
}

pub(super) async fn decrypt(session: &Session, piece: &Piece, wrap: &WrapArgs) -> Outcome {
    let session = &wrap.session(session)?;
    let request = DecryptRequest { name: piece.name.clone(), items: vec![sealed(piece)?] };
    let mut done = session
        .call(request, async |wire, request| Client::new(wire).decrypt(request).await)
        .await?;
    if wrap.hand_over(session.format, done.wrapped.take())? {
        return Ok(());
    }
    if let Some(path) = &piece.out {
        let mut one = must(done.results.pop())?;
        sound(one.fault.take())?;
        let plaintext = Zeroizing::new(std::mem::take(&mut one.plaintext));
        write_private_bytes(path, &plaintext)?;
        note(&format!("what version {} encrypted is in {}", one.version, path.display()));
        return Ok(());
    }
    print_bytes(&unwrapped_plaintext(session.format, done)?)
}

/// Writes a plaintext, as `key decrypt` does.
pub(in crate::cli) fn unwrapped_plaintext(
    format: Format,
    mut done: DecryptResponse,
) -> Outcome<Zeroizing<Vec<u8>>> {
    let mut one = must(done.results.pop())?;
    sound(one.fault.take())?;
    let plaintext = Zeroizing::new(std::mem::take(&mut one.plaintext));
    Ok(match format {
        Format::Human => plaintext,
        Format::Json => {
            let shown = BASE64.encode(&plaintext);
            let shown = json!({ "version": one.version, "plaintext_base64": shown });
            Zeroizing::new(json_text(&shown).into_bytes())
        }
    })
}

pub(super) async fn data_key(
    session: &Session,
    name: &str,
    out: Option<&Path>,
    (len_bytes, aad, wrap): (i32, &str, &WrapArgs),
) -> Outcome {
    wrap.excludes(&[("--out", out.is_some())])?;
    let session = &wrap.session(session)?;
    if let Some(path) = out {
        check_new(path)?;
    }
    let request = MakeDataKeyRequest {
        name: name.to_owned(),
        associated_data: aad.as_bytes().to_vec(),
        len_bytes,
        wrapped_only: out.is_none() && !wrap.asked(),
    };
    let mut made = session
        .call(request, async |wire, request| Client::new(wire).make_data_key(request).await)
        .await?;
    if wrap.hand_over(session.format, made.wrapped.take())? {
        return Ok(());
    }
    let plaintext = Zeroizing::new(std::mem::take(&mut made.plaintext));
    if let Some(path) = out {
        write_private_bytes(path, &plaintext)?;
        note(&format!("the data key is in {}", path.display()));
    }
    give(session, None, "ciphertext", &made.ciphertext, made.used.take())
}

/// Writes a data key that was wrapped, with its ciphertext.
pub(in crate::cli) fn unwrapped_data_key(
    format: Format,
    made: &MakeDataKeyResponse,
) -> Zeroizing<Vec<u8>> {
    let (plaintext, ciphertext) = (BASE64.encode(&made.plaintext), BASE64.encode(&made.ciphertext));
    let text = match format {
        Format::Human => fields(&[("data key", plaintext), ("ciphertext", ciphertext)]),
        Format::Json => {
            json_text(&json!({ "plaintext_base64": plaintext, "ciphertext_base64": ciphertext }))
        }
    };
    Zeroizing::new(text.into_bytes())
}

pub(super) async fn mac(session: &Session, message: &Message) -> Outcome {
    let item = MacItem { message: read_bytes(&message.input)?.to_vec() };
    let request = MacRequest { name: message.name.clone(), items: vec![item] };
    let mut done =
        session.call(request, async |wire, request| Client::new(wire).mac(request).await).await?;
    let one = must(done.results.pop())?;
    sound(one.fault)?;
    give(session, message.out.as_deref(), "mac", &one.mac, done.used)
}

pub(super) async fn sign(session: &Session, message: &Message) -> Outcome {
    let item = SignItem { message: read_bytes(&message.input)?.to_vec() };
    let request = SignRequest { name: message.name.clone(), items: vec![item] };
    let mut done =
        session.call(request, async |wire, request| Client::new(wire).sign(request).await).await?;
    let one = must(done.results.pop())?;
    sound(one.fault)?;
    give(session, message.out.as_deref(), "signature", &one.signature, done.used)
}

pub(super) async fn verify_mac(session: &Session, check: &Check) -> Outcome {
    let item = VerifyMacItem {
        message: read_bytes(&check.input)?.to_vec(),
        mac: read_bytes(&check.proof)?.to_vec(),
        version: check.version,
    };
    let request = VerifyMacRequest { name: check.name.clone(), items: vec![item] };
    let mut done = session
        .call(request, async |wire, request| Client::new(wire).verify_mac(request).await)
        .await?;
    holds(session, must(done.results.pop())?)
}

pub(super) async fn verify(session: &Session, check: &Check) -> Outcome {
    let item = VerifyItem {
        message: read_bytes(&check.input)?.to_vec(),
        signature: read_bytes(&check.proof)?.to_vec(),
        version: check.version,
    };
    let request = VerifyRequest { name: check.name.clone(), items: vec![item] };
    let mut done = session
        .call(request, async |wire, request| Client::new(wire).verify(request).await)
        .await?;
    holds(session, must(done.results.pop())?)
}

pub(super) async fn random(
    session: &Session,
    len_bytes: i32,
    out: Option<&Path>,
    wrap: &WrapArgs,
) -> Outcome {
    if let Some(path) = out {
        check_new(path)?;
    }
    wrap.excludes(&[("--out", out.is_some())])?;
    let session = &wrap.session(session)?;
    let request = GetRandomRequest { len_bytes };
    let mut given = session
        .call(request, async |wire, request| Client::new(wire).get_random(request).await)
        .await?;
    if wrap.hand_over(session.format, given.wrapped.take())? {
        return Ok(());
    }
    match out {
        Some(path) => {
            let bytes = Zeroizing::new(std::mem::take(&mut given.data));
            write_private_bytes(path, &bytes)
        }
        None => print_bytes(&unwrapped_random(session.format, &given)),
    }
}

/// Writes random bytes, as `key random` does.
pub(in crate::cli) fn unwrapped_random(
    format: Format,
    given: &GetRandomResponse,
) -> Zeroizing<Vec<u8>> {
    let shown = BASE64.encode(&given.data);
    let text = match format {
        Format::Human => format!("{shown}\n"),
        Format::Json => json_text(&json!({ "data_base64": shown })),
    };
    Zeroizing::new(text.into_bytes())
}

fn read(piece: &Piece) -> Outcome<Zeroizing<Vec<u8>>> {
    if let Some(path) = &piece.out {
        check_new(path)?;
    }
    read_bytes(&piece.input)
}

/// A ciphertext, as it is or in base64: no format's number is a character of that.
fn sealed(piece: &Piece) -> Outcome<DecryptItem> {
    let bytes = read(piece)?;
    let associated_data = piece.aad.clone().into_bytes();
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let ciphertext = BASE64.decode(&text).unwrap_or_else(|_binary| bytes.to_vec());
    Ok(DecryptItem { ciphertext, associated_data })
}

fn sound(fault: Option<ItemFault>) -> Outcome {
    match fault {
        None => Ok(()),
        Some(fault) => {
            let text = format!("{} ({})", fault.message, fault.reason);
            Err(Failure::new(Exit::Invalid, text))
        }
    }
}

/// Gives what came of something: written to a file, or printed in base64.
fn give(
    session: &Session,
    out: Option<&Path>,
    what: &str,
    bytes: &[u8],
    used: Option<UsedKey>,
) -> Outcome {
    let used = used.unwrap_or_default();
    let by = format!("version {} ({}, {})", used.version, used.algorithm, used.placement);
    if let Some(path) = out {
        write_public(path, bytes)?;
        note(&format!("the {what} of {by} is in {}", path.display()));
        return Ok(());
    }
    match session.format {
        Format::Human => {
            note(&by);
            print(&format!("{}\n", BASE64.encode(bytes)))
        }
        Format::Json => {
            let mut shown = json!({
                "key_id": used.id,
                "version": used.version,
                "placement": used.placement,
                "algorithm": used.algorithm,
            });
            if let Some(object) = shown.as_object_mut() {
                object.insert(format!("{what}_base64"), Value::from(BASE64.encode(bytes)));
            }
            print(&json_text(&shown))
        }
    }
}

fn holds(session: &Session, one: Verified) -> Outcome {
    sound(one.fault)?;
    match (one.valid, session.format) {
        (true, Format::Human) => print(&fields(&[("valid", "yes".to_owned())])),
        (true, Format::Json) => print(&json_text(&json!({ "valid": true }))),
        (false, _) => Err(Failure::new(Exit::Denied, "it does not hold")),
    }
}
