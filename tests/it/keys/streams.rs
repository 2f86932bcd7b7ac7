//! Streams: files larger than a message, whole or not at all.

use strongroom::proto::record_service_client::RecordServiceClient;
use strongroom::proto::{
    DecryptStreamRequest, EncryptStreamRequest, Entry, EntryFilter, ListEntriesRequest, UsedKey,
};
use tonic::{Code, Status};

use super::{CIPHERS, Client, Place, client, create, rotate, update};
use crate::support::logins::login;
use crate::support::node::{BACKENDS, Backend};
use crate::support::target::until;

/// A segment with its tag.
const SEALED: usize = 65_552;
const HEADER: usize = 53;

async fn encrypt(
    client: &mut Client,
    name: &str,
    data: &[u8],
    part: usize,
) -> Result<(Vec<u8>, UsedKey), Status> {
    let (name, aad) = (name.to_owned(), b"file 7".to_vec());
    let mut parts = vec![EncryptStreamRequest { name, associated_data: aad, data: vec![] }];
    parts.extend(data.chunks(part).map(|data| {
        let data = data.to_vec();
        EncryptStreamRequest { data, ..Default::default() }
    }));
    let mut answers = client.encrypt_stream(tokio_stream::iter(parts)).await?.into_inner();
    let (mut out, mut used) = (Vec::new(), None);
    while let Some(answer) = answers.message().await? {
        out.extend_from_slice(&answer.data);
        used = used.or(answer.used);
    }
    Ok((out, used.unwrap()))
}

/// What came of a stream before it failed, and how it ended.
async fn decrypt(
    client: &mut Client,
    name: &str,
    data: &[u8],
    part: usize,
) -> (Vec<u8>, Result<UsedKey, Status>) {
    let (name, aad) = (name.to_owned(), b"file 7".to_vec());
    let mut parts = vec![DecryptStreamRequest { name, associated_data: aad, data: vec![] }];
    parts.extend(data.chunks(part).map(|data| {
        let data = data.to_vec();
        DecryptStreamRequest { data, ..Default::default() }
    }));
    let mut out = Vec::new();
    let answers = client.decrypt_stream(tokio_stream::iter(parts)).await;
    let mut answers = match answers {
        Ok(answers) => answers.into_inner(),
        Err(status) => return (out, Err(status)),
    };
    let mut used = None;
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                out.extend_from_slice(&answer.data);
                used = used.or(answer.used.clone());
            }
            Ok(None) => return (out, Ok(used.unwrap())),
            Err(status) => return (out, Err(status)),
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

async fn entries(p: &Place, action: &str) -> Vec<Entry> {
    p.f.node().vault.integrate().await.unwrap();
    let filter = EntryFilter { action: action.to_owned(), ..Default::default() };
    let request = ListEntriesRequest { filter: Some(filter), page_size: 100, ..Default::default() };
    let mut client = RecordServiceClient::new(p.f.connect(&p.f.admin).await);
    client.list_entries(request).await.unwrap().into_inner().entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_comes_back_whole_however_it_is_cut_and_has_two_entries() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        for cipher in CIPHERS {
            let name = format!("team/{cipher}");
            let key = create(&mut alice, &name, cipher).await;
            for (length, part) in
                [(0, 1), (1, 1), (65_536, 65_536), (65_537, 1_000), (3_000_000, 100_000)]
            {
                let data = pattern(length);
                let (sealed, used) = encrypt(&mut alice, &name, &data, part).await.unwrap();
                assert_eq!((&used.id, used.version), (&key.id, 1));
                let segments = length.div_ceil(65_536).max(1);
                assert_eq!(sealed.len(), HEADER + length + 16 * segments);
                let (opened, ended) = decrypt(&mut alice, &name, &sealed, 70_000).await;
                ended.unwrap();
                assert_eq!(opened, data);
            }
            let told = entries(&p, "keys.encrypt-stream").await;
            let of_key: Vec<_> = told
                .iter()
                .filter(|entry| entry.keys.iter().any(|used| used.key == key.id))
                .map(|entry| (entry.outcome.as_str(), entry.detail.as_str()))
                .collect();
            assert!(of_key.contains(&("BEGUN", "0 bytes")), "{of_key:?}");
            assert!(of_key.contains(&("ok", "3000000 bytes")), "{of_key:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_reordered_repeated_or_altered_ends_badly() {
    let p = Place::new(BACKENDS[0]).await;
    let mut alice = p.alice();
    create(&mut alice, "team/a", "aes-256-gcm").await;
    create(&mut alice, "team/b", "aes-256-gcm").await;
    let data = pattern(3 * 65_536 + 100);
    let (whole, _) = encrypt(&mut alice, "team/a", &data, 65_536).await.unwrap();
    let (head, body) = whole.split_at(HEADER);
    let segments: Vec<_> = body.chunks(SEALED).collect();
    let join = |order: &[usize]| {
        let body: Vec<u8> = order.iter().flat_map(|one| segments[*one].to_vec()).collect();
        [head, body.as_slice()].concat()
    };
    let mut bad = vec![
        join(&[0, 1, 2]),
        join(&[0, 1]),
        join(&[1, 0, 2, 3]),
        join(&[0, 0, 1, 2, 3]),
        join(&[0, 2, 3]),
        join(&[0, 1, 2, 3, 3]),
        join(&[]),
        whole[..whole.len() - 1].to_vec(),
        whole[..HEADER + 100].to_vec(),
        [whole.as_slice(), b"x"].concat(),
    ];
    for at in [17, 30, HEADER, HEADER + SEALED, whole.len() - 1] {
        let mut altered = whole.clone();
        altered[at] ^= 1;
        bad.push(altered);
    }
    for stream in bad {
        let (opened, ended) = decrypt(&mut alice, "team/a", &stream, 65_536).await;
        assert_eq!(ended.unwrap_err().code(), Code::InvalidArgument);
        assert!(data.starts_with(&opened), "nothing else than the beginning ever comes");
    }
    let (opened, ended) = decrypt(&mut alice, "team/b", &whole, 65_536).await;
    assert_eq!((opened.len(), ended.unwrap_err().code()), (0, Code::InvalidArgument));
    for short in [&b""[..], &whole[..52], &[0x41; 100]] {
        let (opened, ended) = decrypt(&mut alice, "team/a", short, 10).await;
        assert_eq!((opened.len(), ended.unwrap_err().code()), (0, Code::InvalidArgument));
    }
    // Whatever is wrong inside, the answer is one: its version, its salt, a segment, its end.
    let mut told = Vec::new();
    for (at, to) in [(20, 0), (20, 9), (21, !whole[21]), (HEADER, !whole[HEADER])] {
        let mut altered = whole.clone();
        altered[at] = to;
        let (opened, ended) = decrypt(&mut alice, "team/a", &altered, 65_536).await;
        assert!(opened.is_empty(), "{at}");
        told.push(ended.unwrap_err().message().to_owned());
    }
    let (_, ended) = decrypt(&mut alice, "team/a", &join(&[0, 1, 2]), 65_536).await;
    told.push(ended.unwrap_err().message().to_owned());
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    // A message is no stream, and a stream no message.
    let message = super::encrypt(&mut alice, "team/a", &[7; 100], b"file 7").await.unwrap();
    let (_, ended) = decrypt(&mut alice, "team/a", &message, 100).await;
    assert_eq!(ended.unwrap_err().code(), Code::InvalidArgument);
    let told = super::decrypt(&mut alice, "team/a", &whole[..200], b"file 7").await;
    assert_eq!(told, Err("INVALID".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_use_the_newest_version_and_retired_ones_do_not_open() {
    for backend in BACKENDS {
        let p = Place::new(backend).await;
        let mut alice = p.alice();
        create(&mut alice, "team/a", "xaes-256-gcm").await;
        let (first, _) = encrypt(&mut alice, "team/a", b"one", 3).await.unwrap();
        rotate(&mut alice, "team/a", 1).await.unwrap();
        let (second, used) = encrypt(&mut alice, "team/a", b"two", 3).await.unwrap();
        assert_eq!(used.version, 2);
        assert_eq!(decrypt(&mut alice, "team/a", &first, 9).await.0, b"one");
        let retire = |request: strongroom::proto::UpdateKeyRequest| {
            strongroom::proto::UpdateKeyRequest { min_version: 2, ..request }
        };
        update(&mut alice, "team/a", retire).await.unwrap();
        let (_, ended) = decrypt(&mut alice, "team/a", &first, 9).await;
        assert_eq!(ended.unwrap_err().code(), Code::FailedPrecondition);
        assert_eq!(decrypt(&mut alice, "team/a", &second, 9).await.0, b"two");
        let (_, ended) = decrypt(&mut p.etl(), "team/a", &second, 9).await;
        assert_eq!(ended.unwrap_err().code(), Code::PermissionDenied);
        let refused = encrypt(&mut p.etl(), "team/a", b"x", 1).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_cut_when_its_key_is_disabled() {
    let p = Place::new(BACKENDS[0]).await;
    let mut alice = p.alice();
    create(&mut alice, "team/a", "aes-256-gcm").await;
    let (parts, sent) = tokio::sync::mpsc::channel(4);
    let first = EncryptStreamRequest { name: "team/a".into(), ..Default::default() };
    parts.send(first).await.unwrap();
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let mut answers = alice.encrypt_stream(sent).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().used.is_some());
    let disable = |request: strongroom::proto::UpdateKeyRequest| {
        strongroom::proto::UpdateKeyRequest { state: "disabled".into(), ..request }
    };
    update(&mut p.alice(), "team/a", disable).await.unwrap();
    let ended = answers.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::FailedPrecondition, "{ended}");
    drop(parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_another_node_is_cut_when_its_key_is_disabled() {
    let p = Place::new(Backend::Postgres).await;
    let second = p.f.second_node().await;
    let there = p.f.connect_to(&second, &login(&p.f, "alice").await).await;
    create(&mut p.alice(), "team/a", "aes-256-gcm").await;
    let (parts, sent) = tokio::sync::mpsc::channel(4);
    let first = EncryptStreamRequest { name: "team/a".into(), ..Default::default() };
    parts.send(first).await.unwrap();
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let mut answers = client(&there).encrypt_stream(sent).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().used.is_some());
    let disable = |request: strongroom::proto::UpdateKeyRequest| {
        strongroom::proto::UpdateKeyRequest { state: "disabled".into(), ..request }
    };
    // Nothing else is asked of the other node: the stream itself has to hear of it.
    update(&mut p.alice(), "team/a", disable).await.unwrap();
    let patience = std::time::Duration::from_secs(5);
    let ended = tokio::time::timeout(patience, answers.message()).await.unwrap();
    let ended = ended.unwrap_err();
    assert_eq!(ended.code(), Code::FailedPrecondition, "{ended}");
    drop(parts);
    second.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_has_so_many_streams_and_one_to_which_nothing_comes_is_over() {
    let p = Place::new(BACKENDS[0]).await;
    create(&mut p.alice(), "team/a", "aes-256-gcm").await;
    let open = async || {
        let (parts, sent) = tokio::sync::mpsc::channel(4);
        let first = EncryptStreamRequest { name: "team/a".into(), ..Default::default() };
        parts.send(first).await.unwrap();
        let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
        let answers = p.alice().encrypt_stream(sent).await?.into_inner();
        Ok::<_, Status>((parts, answers))
    };
    let mut held = Vec::new();
    for _ in 0..32 {
        held.push(open().await.unwrap());
    }
    assert_eq!(open().await.map(drop).unwrap_err().code(), Code::ResourceExhausted);
    // One that is left makes room for another.
    drop(held.pop());
    until("one is over", async || open().await.is_ok()).await;
    p.f.clock.advance(std::time::Duration::from_secs(61));
    let (_parts, mut answers) = held.remove(0);
    let ended = loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(status) => break status.code(),
        }
    };
    assert_eq!(ended, Code::DeadlineExceeded);
}
