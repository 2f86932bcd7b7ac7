//! What is sealed, held against the RFC and another implementation; what does not open.

use super::*;
use crate::crypto::{hex, parse_hex};
use crate::types::SystemEntropy;

/// A generator that says one thing.
#[derive(Debug)]
struct Says([u8; 32]);

impl Entropy for Says {
    fn fill(&self, buffer: &mut [u8]) -> crate::error::Result<()> {
        buffer.copy_from_slice(&self.0);
        Ok(())
    }
}

fn bytes(text: &str) -> Vec<u8> {
    parse_hex(text).unwrap()
}

#[test]
fn the_shared_secret_is_that_of_rfc_9180_a_1_1_and_a_3_1() {
    for (kem, ephemeral, sent, public, secret) in [
        (
            &KEM_X25519,
            "52c4a758a802cd8b936eceea314432798d5baf2d7e9235dc084ab1b9cfa2f736",
            "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
            "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
            "fe0e18c9f024ce43799ae393c7e8fe8fce9d218875e8227b0187c04e7d2ea1fc",
        ),
        (
            &KEM_P256,
            "4995788ef4b9d6132b249ce59a77281493eb39af373d236a1fe415cb0c2d7beb",
            "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac9\
             8536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4",
            "04fe8c19ce0905191ebc298a9245792531f26f0cece2460639e8bc39cb7f706a82\
             6a779b4cf969b8a0e539c7f62fb3d30ad6aa8f80e30f1d128aafd68a2ce72ea0",
            "c0d26aeab536609a572b07695d933b589dcf363ff9d93c93adea537aeabb8cb8",
        ),
    ] {
        let key = PrivateKey::from_private_key(kem.algorithm, &bytes(ephemeral)).unwrap();
        let (sent, public) = (bytes(sent), bytes(public));
        assert_eq!(public_of(&key).unwrap().as_ref(), sent);
        let agreed = shared(kem, &key, &public, (&sent, &public)).unwrap();
        assert_eq!(hex(agreed.as_slice()), secret);
    }
}

/// Made by a program of its own in Python, which the library `cryptography` opens.
#[test]
fn a_message_is_what_another_implementation_makes_of_it() {
    let private = SecretBytes::new(vec![0x55; 32]);
    let public = hpke_public(&private).unwrap();
    assert_eq!(
        hex(public.as_bytes()),
        "38ab664bd86f77d7e66bdd9ae0792913a94fd8b33a1260027e4b46c1f4884c67"
    );
    let plaintext: Vec<u8> = (0..32).collect();
    let sealed = hpke_seal(&public, b"info", b"aad", &plaintext, &Says([0x66; 32])).unwrap();
    let expected = "219e4d800da968d2a5fcb009c784f4746c7138edb9ee4844b739e830b05cf424\
                    8290ee3830a67c40bc1aeced23ed40d9d007e769fff5f3ea9d2d3ecb826b1d93\
                    3a65670a24ce7ccae447d91a51f2a3f2";
    assert_eq!(hex(&sealed), expected);
    assert_eq!(hpke_open(&private, b"info", b"aad", &sealed).unwrap().expose(), plaintext);

    let psk = SecretBytes::new(vec![0x77; 32]);
    let to = (&public, &psk);
    let sealed = hpke_seal_shared(to, b"info", b"aad", &plaintext, &Says([0x66; 32])).unwrap();
    let expected = "219e4d800da968d2a5fcb009c784f4746c7138edb9ee4844b739e830b05cf424\
                    a99602d45158b74914840bc46ad1e74fb28585b9deed4151a0bfd35ac784b674\
                    f3023b6a790c34d383dc8332ef4fb084";
    assert_eq!(hex(&sealed), expected);
    let opened = hpke_open_shared((&private, &psk), b"info", b"aad", &sealed);
    assert_eq!(opened.unwrap().expose(), plaintext);
}

/// What a token does: it has the private half, and agrees on a secret with whoever sent a point.
fn agrees(private: &[u8], sealed: &[u8]) -> SecretBytes {
    let private = PrivateKey::from_private_key(&ECDH_P256, private).unwrap();
    let sent = UnparsedPublicKey::new(&ECDH_P256, hpke_sent_point(sealed).unwrap());
    agree(&private, sent, (), |dh| Ok(SecretBytes::new(dh.to_vec()))).unwrap()
}

fn token() -> ([u8; 32], HpkePublic) {
    let private = PrivateKey::from_private_key(&ECDH_P256, &[0x55; 32]).unwrap();
    let public = HpkePublic::parse(public_of(&private).unwrap().as_ref()).unwrap();
    ([0x55; 32], public)
}

/// As above.
#[test]
fn a_message_for_a_token_is_what_another_implementation_makes_of_it() {
    let (private, public) = token();
    assert_eq!(
        hex(public.as_bytes()),
        "0457e977f6db7e33c3fe7acf2842ed987009caf56d458682fca447b7d3d762ab34\
         c5ab3770ba573bdff5414065640ffb5b346dfa84dec4db4d68e5f59cc471c2ec"
    );
    let sent = "040bbbc5e8bc84bd33d1d3ce03ffac9a747f4c1993fddb2ec93a4116a86f022a77\
                c3c17191559a4c2a1aa57e79b8d1977da2c959172f478e341e27028d69fffb7b";
    let plaintext: Vec<u8> = (0..32).collect();
    let says = Says([0x66; 32]);
    let base = hpke_seal(&public, b"info", b"aad", &plaintext, &says).unwrap();
    let expected = "41c25477e90eb02df696b1cf0bcdcc6e79d53f1e5d55c5eb6dfb349a8d1d9577\
                    abcdffc9f2e8e918b9506baa026f407c";
    assert_eq!(hex(&base), format!("{sent}{expected}"));
    let psk = SecretBytes::new(vec![0x77; 32]);
    let to = (&public, &psk);
    let shared = hpke_seal_shared(to, b"info", b"aad", &plaintext, &says).unwrap();
    let expected = "294c4c8aa01ea53e1fde8c1720a39bfb5cda5f200d9e2f7659400b372ad94884\
                    5471b2e898ef6e9f6cfbead48771455a";
    assert_eq!(hex(&shared), format!("{sent}{expected}"));
    for (sealed, psk) in [(base, None), (shared, Some(&psk))] {
        let agreed = agrees(&private, &sealed);
        let opened = hpke_open_agreed(&agreed, (&public, psk), b"info", b"aad", &sealed);
        assert_eq!(opened.unwrap().expose(), plaintext);
    }
}

#[test]
fn nothing_opens_in_a_token_with_another_shared_key_place_or_bit() {
    let (private, public) = token();
    let psk = SecretBytes::new(vec![1; 32]);
    let sealed = hpke_seal_shared((&public, &psk), b"info", b"aad", b"message", &SystemEntropy);
    let sealed = sealed.unwrap();
    let agreed = agrees(&private, &sealed);
    let open = |psk, info: &[u8], aad: &[u8], sealed: &[u8]| {
        hpke_open_agreed(&agreed, (&public, psk), info, aad, sealed)
    };
    assert!(open(Some(&psk), b"info", b"aad", &sealed).is_ok());
    let other = SecretBytes::new(vec![2; 32]);
    for (psk, info, aad) in [
        (None, b"info".as_slice(), b"aad".as_slice()),
        (Some(&other), b"info", b"aad"),
        (Some(&psk), b"inf", b"aad"),
        (Some(&psk), b"info", b"add"),
    ] {
        assert_eq!(open(psk, info, aad, &sealed), Err(CryptoError::Open));
    }
    for at in 0..sealed.len() {
        let mut bent = sealed.clone();
        bent[at] ^= 1;
        // Also where the token were to agree as before.
        assert_eq!(open(Some(&psk), b"info", b"aad", &bent), Err(CryptoError::Open), "{at}");
    }
    let short = hpke_sent_point(&sealed[..HPKE_POINT_BYTES - 1]);
    assert_eq!(short, Err(CryptoError::Open));
}

#[test]
fn a_public_half_that_is_none_is_refused() {
    let (_, public) = token();
    let point = public.as_bytes();
    assert_eq!(HpkePublic::parse(point), Ok(public));
    let malformed = CryptoError::Malformed("public key");
    let compressed = [&[2][..], &point[1..33]].concat();
    let hybrid = [&[6][..], &point[1..]].concat();
    for none in [&[][..], &point[1..], &point[..64], &compressed, &hybrid] {
        assert_eq!(HpkePublic::parse(none), Err(malformed), "{} bytes", none.len());
    }
    let mut beside = point.to_vec();
    beside[64] ^= 1;
    let beside = HpkePublic::parse(&beside).unwrap();
    let refused = hpke_seal(&beside, b"", b"", b"message", &SystemEntropy);
    assert_eq!(refused, Err(malformed), "it is not on the curve");
}

#[test]
fn who_has_not_the_shared_key_seals_nothing_that_opens_with_it() {
    let private = hpke_private(&SystemEntropy).unwrap();
    let public = hpke_public(&private).unwrap();
    let key = |byte| SecretBytes::new(vec![byte; 32]);
    let (ours, others) = (key(1), key(2));
    let base = hpke_seal(&public, b"info", b"aad", b"message", &SystemEntropy).unwrap();
    let to = (&public, &others);
    let foreign = hpke_seal_shared(to, b"info", b"aad", b"message", &SystemEntropy).unwrap();
    for forged in [base, foreign] {
        let refused = hpke_open_shared((&private, &ours), b"info", b"aad", &forged);
        assert_eq!(refused, Err(CryptoError::Open));
    }
    let none = SecretBytes::new(Vec::new());
    let refused = hpke_seal_shared((&public, &none), b"", b"", b"", &SystemEntropy);
    assert_eq!(refused, Err(CryptoError::KeyLength));
}

#[test]
fn nothing_opens_with_a_bit_changed_or_for_somebody_else() {
    let private = hpke_private(&SystemEntropy).unwrap();
    let public = hpke_public(&private).unwrap();
    let sealed = hpke_seal(&public, b"info", b"aad", b"message", &SystemEntropy).unwrap();
    for at in 0..sealed.len() {
        let mut bent = sealed.clone();
        bent[at] ^= 1;
        let refused = hpke_open(&private, b"info", b"aad", &bent);
        assert_eq!(refused, Err(CryptoError::Open), "byte {at}");
        assert_eq!(hpke_open(&private, b"info", b"aad", &sealed[..at]), Err(CryptoError::Open));
    }
    let other = hpke_private(&SystemEntropy).unwrap();
    for (key, info, aad) in [
        (&other, b"info".as_slice(), b"aad".as_slice()),
        (&private, b"inf", b"aad"),
        (&private, b"info", b"add"),
    ] {
        assert_eq!(hpke_open(key, info, aad, &sealed), Err(CryptoError::Open));
    }
    // A public half of small order agrees with everybody on the same secret.
    let none = HpkePublic::X25519([0; 32]);
    let refused = hpke_seal(&none, b"", b"", b"message", &SystemEntropy);
    assert_eq!(refused, Err(CryptoError::Malformed("public key")));
}
