//! Signs the manifest. Without a release key, with a development key of this machine: made once, kept in the cache.

use std::{os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::{Context, Result};
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};

pub(crate) struct Signer {
    secret: SecretKey,
    public: PublicKey,
}

/// In the signature, because something must be: the time would change the bytes.
const COMMENT: &str = "slipway guest image";

impl Signer {
    /// From a file, or the development key of the folder `cache`. Encrypted keys are asked for their password.
    pub(crate) fn load(file: Option<&Path>, cache: &Path) -> Result<Self> {
        let development = cache.join("development.key");
        let path = file.unwrap_or(&development);
        if file.is_none() && !path.exists() {
            make(path)?;
        }
        let text =
            std::fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
        let parse = || -> Result<SecretKey> {
            let boxed = SecretKeyBox::from_string(&text)?;
            match file {
                Some(_) => Ok(boxed.into_secret_key(None)?),
                None => Ok(boxed.into_unencrypted_secret_key()?),
            }
        };
        let secret = parse().with_context(|| format!("`{}` is not a minisign key", path.display()))?;
        let public = PublicKey::from_secret_key(&secret).context("the key has no public half")?;
        Ok(Self { secret, public })
    }

    /// The public key, as the host reads it.
    pub(crate) fn public(&self) -> String {
        format!("{}\n", self.public.to_base64())
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> Result<String> {
        let signed = minisign::sign(Some(&self.public), &self.secret, bytes, Some(COMMENT), Some(COMMENT));
        Ok(signed.context("failed to sign the manifest")?.into_string())
    }
}

fn make(path: &Path) -> Result<()> {
    use std::io::Write;
    println!("making a development key in `{}`", path.display());
    let KeyPair { sk, .. } = KeyPair::generate_unencrypted_keypair().context("failed to make a key")?;
    let text = sk.to_box(None).context("failed to write the key")?.into_string();
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("failed to write `{}`", path.display()))
}
