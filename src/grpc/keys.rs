//! `KeyService`.

mod streams;
mod translate;

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use self::translate::{artifact, create, detail, fault, item_count, shown, update, usage, used};
use super::accept::Gate;
use super::fields::span;
use crate::engines::keys::{
    Answers, BackUpKey, Batch, CreateHsmKey, CreateKey, DataKey, Decrypting, Encrypting, ExportKey,
    Fault, GetKeyUsage, GetRandom, ImportKey, Job, Keys, ListKeys, Macing, MakeDataKey, OpenItem,
    Opened, RestoreKey, Rewrapping, RotateKey, SealItem, ShowKey, Signing, TransferKey, VerifyItem,
    Verifying, VerifyingMac,
};
use crate::engines::pki::public_pem;
use crate::error::{Error, Result};
use crate::proto::key_service_server::KeyService;
use crate::proto::{
    BackUpKeyRequest, BackUpKeyResponse, CreateKeyRequest, CreateKeyResponse, DecryptRequest,
    DecryptResponse, DecryptStreamRequest, DecryptStreamResponse, Decrypted, EncryptRequest,
    EncryptResponse, EncryptStreamRequest, EncryptStreamResponse, Encrypted, ExportKeyRequest,
    ExportKeyResponse, GetKeyRequest, GetKeyResponse, GetKeyUsageRequest, GetKeyUsageResponse,
    GetRandomRequest, GetRandomResponse, ImportKeyRequest, ImportKeyResponse, ListKeysRequest,
    ListKeysResponse, MacRequest, MacResponse, MacResult, MakeDataKeyRequest, MakeDataKeyResponse,
    RestoreKeyRequest, RestoreKeyResponse, RewrapRequest, RewrapResponse, RotateKeyRequest,
    RotateKeyResponse, SignArtifactRequest, SignArtifactResponse, SignRequest, SignResponse,
    SignResult, TransferKeyRequest, TransferKeyResponse, UpdateKeyRequest, UpdateKeyResponse,
    Verified, VerifyMacRequest, VerifyMacResponse, VerifyRequest, VerifyResponse,
};
use crate::types::{RequestContext, SecretBytes};

/// Serves named keys.
#[derive(Debug, Clone)]
pub(super) struct NamedKeys {
    pub(super) gate: Gate,
    pub(super) keys: Keys,
}

type Answer<T> = Result<Response<T>, Status>;

impl NamedKeys {
    pub(super) fn new(gate: Gate) -> Self {
        Self { gate, keys: Keys::default() }
    }

    /// Does one verb to items under one key.
    async fn batch<J: Job>(
        &self,
        ctx: &RequestContext,
        name: &str,
        items: Vec<J::Item>,
    ) -> Result<Answers<J::Done>, Status> {
        let batch = || Batch::<J>::new(self.keys.clone(), name.parse()?, items);
        let op = self.gate.read(ctx, batch())?;
        let answers = Gate::answer(ctx, self.gate.vault.run(ctx, op).await)?;
        Ok(Arc::try_unwrap(answers).unwrap_or_else(|shared| (*shared).clone()))
    }
}

#[tonic::async_trait]
impl KeyService for NamedKeys {
    async fn create_key(&self, request: Request<CreateKeyRequest>) -> Answer<CreateKeyResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let spec = self.gate.read(&ctx, create(&request))?;
        let vault = &self.gate.vault;
        let made = if spec.is_made_in_hsm() {
            vault.run_effect(&ctx, CreateHsmKey { spec }).await
        } else {
            vault.run(&ctx, CreateKey { spec }).await
        };
        let key = Some(detail(Gate::answer(&ctx, made)?));
        Ok(Response::new(CreateKeyResponse { key }))
    }

    async fn get_key(&self, request: Request<GetKeyRequest>) -> Answer<GetKeyResponse> {
        let (ctx, GetKeyRequest { name }) = self.gate.accept(request).await?;
        let op = ShowKey { name: self.gate.read(&ctx, name.parse())? };
        Ok(Response::new(shown(Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?)))
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Answer<ListKeysResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let ListKeysRequest { page_size, page_token, prefix, unused_for_s } = request;
        let unused_for = self.gate.read(&ctx, span("unused_for_s", unused_for_s))?;
        let op = ListKeys { prefix, unused_for, page_size, page_token };
        let page = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let keys = page.keys.into_iter().map(detail).collect();
        Ok(Response::new(ListKeysResponse { keys, next_page_token: page.next }))
    }

    async fn rotate_key(&self, request: Request<RotateKeyRequest>) -> Answer<RotateKeyResponse> {
        let (ctx, RotateKeyRequest { name, expected_version }) = self.gate.accept(request).await?;
        let op =
            RotateKey { name: self.gate.read(&ctx, name.parse())?, expected: expected_version };
        let rotated = Gate::answer(&ctx, self.gate.vault.run_effect(&ctx, op).await)?;
        Ok(Response::new(RotateKeyResponse { key: Some(detail(rotated)) }))
    }

    async fn update_key(&self, request: Request<UpdateKeyRequest>) -> Answer<UpdateKeyResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, update(request))?;
        let changed = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(UpdateKeyResponse { key: Some(detail(changed)) }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Answer<EncryptResponse> {
        let (ctx, EncryptRequest { name, items }) = self.gate.accept(request).await?;
        let items = items.into_iter().map(|mut item| SealItem {
            plaintext: SecretBytes::new(std::mem::take(&mut item.plaintext)),
            associated_data: std::mem::take(&mut item.associated_data),
        });
        let done = self.batch::<Encrypting>(&ctx, &name, items.collect()).await?;
        let results = done.results.into_iter().map(encrypted).collect();
        Ok(Response::new(EncryptResponse { results, used: Some(used(done.used)) }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Answer<DecryptResponse> {
        let (ctx, request, wrap) = self.gate.accept_wrapping(request).await?;
        let DecryptRequest { name, items } = request;
        let items = items.into_iter().map(open_item).collect();
        let batch = || Batch::<Decrypting>::new(self.keys.clone(), name.parse()?, items);
        let op = self.gate.read(&ctx, batch())?;
        let show = |done: &Arc<Answers<Opened>>| {
            let results = done.results.iter().map(decrypted).collect();
            Ok(DecryptResponse { results, used: Some(used(done.used)), wrapped: None })
        };
        self.gate.give(&ctx, op, wrap, show).await
    }

    type EncryptStreamStream = streams::Out<EncryptStreamResponse>;

    async fn encrypt_stream(
        &self,
        request: Request<Streaming<EncryptStreamRequest>>,
    ) -> Answer<Self::EncryptStreamStream> {
        let (ctx, inbound) = self.gate.accept(request).await?;
        let pieces = streams::encrypt(self, &ctx, inbound).await?;
        let answer = |(data, used)| EncryptStreamResponse { data, used };
        Ok(Response::new(streams::out(ctx, pieces, answer)))
    }

    type DecryptStreamStream = streams::Out<DecryptStreamResponse>;

    async fn decrypt_stream(
        &self,
        request: Request<Streaming<DecryptStreamRequest>>,
    ) -> Answer<Self::DecryptStreamStream> {
        let (ctx, inbound) = self.gate.accept(request).await?;
        let pieces = streams::decrypt(self, &ctx, inbound).await?;
        let answer = |(data, used)| DecryptStreamResponse { data, used };
        Ok(Response::new(streams::out(ctx, pieces, answer)))
    }

    async fn rewrap(&self, request: Request<RewrapRequest>) -> Answer<RewrapResponse> {
        let (ctx, RewrapRequest { name, items }) = self.gate.accept(request).await?;
        let items = items.into_iter().map(open_item).collect();
        let done = self.batch::<Rewrapping>(&ctx, &name, items).await?;
        let results = done.results.into_iter().map(encrypted).collect();
        Ok(Response::new(RewrapResponse { results, used: Some(used(done.used)) }))
    }

    async fn make_data_key(
        &self,
        request: Request<MakeDataKeyRequest>,
    ) -> Answer<MakeDataKeyResponse> {
        let (ctx, request, wrap) = self.gate.accept_wrapping(request).await?;
        let MakeDataKeyRequest { name, associated_data, len_bytes, wrapped_only } = request;
        let op = MakeDataKey {
            keys: self.keys.clone(),
            name: self.gate.read(&ctx, name.parse())?,
            associated_data,
            len_bytes: self.gate.read(&ctx, item_count("len_bytes", len_bytes))?.unwrap_or(32),
            wrapped_only,
        };
        let show = |made: &Arc<DataKey>| {
            let plaintext = made.plaintext.as_ref().map(|key| key.expose().to_vec());
            Ok(MakeDataKeyResponse {
                plaintext: plaintext.unwrap_or_default(),
                ciphertext: made.ciphertext.clone(),
                used: Some(used(made.used)),
                wrapped: None,
            })
        };
        self.gate.give(&ctx, op, wrap, show).await
    }

    async fn mac(&self, request: Request<MacRequest>) -> Answer<MacResponse> {
        let (ctx, MacRequest { name, items }) = self.gate.accept(request).await?;
        let message = |mut item: crate::proto::MacItem| std::mem::take(&mut item.message);
        let items = items.into_iter().map(|item| SecretBytes::new(message(item))).collect();
        let done = self.batch::<Macing>(&ctx, &name, items).await?;
        let result = |one| match one {
            Ok(mac) => MacResult { mac, fault: None },
            Err(why) => MacResult { mac: Vec::new(), fault: Some(fault(why)) },
        };
        let results = done.results.into_iter().map(result).collect();
        Ok(Response::new(MacResponse { results, used: Some(used(done.used)) }))
    }

    async fn verify_mac(&self, request: Request<VerifyMacRequest>) -> Answer<VerifyMacResponse> {
        let (ctx, VerifyMacRequest { name, items }) = self.gate.accept(request).await?;
        let items = items.into_iter().map(|mut item| VerifyItem {
            message: SecretBytes::new(std::mem::take(&mut item.message)),
            proof: std::mem::take(&mut item.mac),
            version: item.version,
        });
        let done = self.batch::<VerifyingMac>(&ctx, &name, items.collect()).await?;
        let results = done.results.into_iter().map(verified).collect();
        Ok(Response::new(VerifyMacResponse { results, used: Some(used(done.used)) }))
    }

    async fn sign(&self, request: Request<SignRequest>) -> Answer<SignResponse> {
        let (ctx, SignRequest { name, items }) = self.gate.accept(request).await?;
        let message = |mut item: crate::proto::SignItem| std::mem::take(&mut item.message);
        let items = items.into_iter().map(|item| SecretBytes::new(message(item))).collect();
        let done = self.batch::<Signing>(&ctx, &name, items).await?;
        let result = |one| match one {
            Ok(signature) => SignResult { signature, fault: None },
            Err(why) => SignResult { signature: Vec::new(), fault: Some(fault(why)) },
        };
        let results = done.results.into_iter().map(result).collect();
        Ok(Response::new(SignResponse { results, used: Some(used(done.used)) }))
    }

    async fn verify(&self, request: Request<VerifyRequest>) -> Answer<VerifyResponse> {
        let (ctx, VerifyRequest { name, items }) = self.gate.accept(request).await?;
        let items = items.into_iter().map(|mut item| VerifyItem {
            message: SecretBytes::new(std::mem::take(&mut item.message)),
            proof: std::mem::take(&mut item.signature),
            version: item.version,
        });
        let done = self.batch::<Verifying>(&ctx, &name, items.collect()).await?;
        let results = done.results.into_iter().map(verified).collect();
        Ok(Response::new(VerifyResponse { results, used: Some(used(done.used)) }))
    }

    async fn export_key(&self, request: Request<ExportKeyRequest>) -> Answer<ExportKeyResponse> {
        let (ctx, ExportKeyRequest { name, version }) = self.gate.accept(request).await?;
        let name = self.gate.read(&ctx, name.parse())?;
        let op = ExportKey { keys: self.keys.clone(), name, version };
        let half = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let public_key_pem = public_pem(&half.spki_der);
        Ok(Response::new(ExportKeyResponse { public_key_pem, used: Some(used(half.used)) }))
    }

    async fn import_key(&self, request: Request<ImportKeyRequest>) -> Answer<ImportKeyResponse> {
        let (ctx, ImportKeyRequest { name, wrapped }) = self.gate.accept(request).await?;
        let name = self.gate.read(&ctx, name.parse())?;
        let op = ImportKey { keys: self.keys.clone(), name, wrapped };
        let brought = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(ImportKeyResponse { key: Some(detail(brought)) }))
    }

    async fn transfer_key(
        &self,
        request: Request<TransferKeyRequest>,
    ) -> Answer<TransferKeyResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = TransferKey {
            name: self.gate.read(&ctx, request.name.parse())?,
            owner: self.gate.read(&ctx, request.owner.parse())?,
            expected: request.expected_version,
        };
        let given = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(TransferKeyResponse { key: Some(detail(given)) }))
    }

    async fn back_up_key(&self, request: Request<BackUpKeyRequest>) -> Answer<BackUpKeyResponse> {
        let (ctx, BackUpKeyRequest { name }) = self.gate.accept(request).await?;
        let op = BackUpKey { name: self.gate.read(&ctx, name.parse())? };
        let backup = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(BackUpKeyResponse { backup }))
    }

    async fn restore_key(&self, request: Request<RestoreKeyRequest>) -> Answer<RestoreKeyResponse> {
        let (ctx, RestoreKeyRequest { name, backup }) = self.gate.accept(request).await?;
        let op = RestoreKey { name: self.gate.read(&ctx, name.parse())?, backup };
        let restored = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        Ok(Response::new(RestoreKeyResponse { key: Some(detail(restored)) }))
    }

    async fn sign_artifact(
        &self,
        request: Request<SignArtifactRequest>,
    ) -> Answer<SignArtifactResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let op = self.gate.read(&ctx, artifact(self.keys.clone(), request))?;
        let signed = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let (envelope, used) = (signed.envelope, Some(used(signed.used)));
        Ok(Response::new(SignArtifactResponse { envelope, used }))
    }

    async fn get_key_usage(
        &self,
        request: Request<GetKeyUsageRequest>,
    ) -> Answer<GetKeyUsageResponse> {
        let (ctx, request) = self.gate.accept(request).await?;
        let GetKeyUsageRequest { name, page_size, page_token } = request;
        let op = GetKeyUsage { name: self.gate.read(&ctx, name.parse())?, page_size, page_token };
        let page = Gate::answer(&ctx, self.gate.vault.run(&ctx, op).await)?;
        let rows = page.rows.into_iter().map(usage).collect();
        Ok(Response::new(GetKeyUsageResponse { rows, next_page_token: page.next }))
    }

    async fn get_random(&self, request: Request<GetRandomRequest>) -> Answer<GetRandomResponse> {
        let (ctx, request, wrap) = self.gate.accept_wrapping(request).await?;
        let GetRandomRequest { len_bytes } = request;
        let len_bytes = self.gate.read(&ctx, item_count("len_bytes", len_bytes))?;
        let wanted = len_bytes.ok_or_else(|| Error::invalid("say how many bytes"));
        let op = GetRandom { len_bytes: self.gate.read(&ctx, wanted)? };
        let show = |bytes: &SecretBytes| {
            Ok(GetRandomResponse { data: bytes.expose().to_vec(), wrapped: None })
        };
        self.gate.give(&ctx, op, wrap, show).await
    }
}

fn open_item(item: crate::proto::DecryptItem) -> OpenItem {
    OpenItem { ciphertext: item.ciphertext, associated_data: item.associated_data }
}

fn encrypted(one: Result<Arc<Vec<u8>>, Fault>) -> Encrypted {
    match one {
        Ok(ciphertext) => {
            let ciphertext = Arc::try_unwrap(ciphertext).unwrap_or_else(|it| (*it).clone());
            Encrypted { ciphertext, fault: None }
        }
        Err(why) => Encrypted { ciphertext: Vec::new(), fault: Some(fault(why)) },
    }
}

fn decrypted(one: &Result<Opened, Fault>) -> Decrypted {
    match one {
        Ok(Opened { plaintext, version }) => {
            Decrypted { plaintext: plaintext.expose().to_vec(), version: *version, fault: None }
        }
        Err(why) => {
            Decrypted { plaintext: Vec::new(), version: 0, fault: Some(fault(why.clone())) }
        }
    }
}

fn verified(one: Result<bool, Fault>) -> Verified {
    match one {
        Ok(valid) => Verified { valid, fault: None },
        Err(why) => Verified { valid: false, fault: Some(fault(why)) },
    }
}
