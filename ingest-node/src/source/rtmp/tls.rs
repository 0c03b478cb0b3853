//! TLS for RTMPS: certificate and key from PEM files, which may be replaced while the node runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use millrace_runtime::actors::{ActorContext, Order};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::limits;

/// The certificate and key of the RTMPS listener. Connections accepted after a reload use the new ones.
pub(crate) struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    loaded: RwLock<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    /// The files' times of modification before they were read.
    modified: [Option<SystemTime>; 2],
}

impl Certificate {
    /// Reads a certificate chain (leaf first) and its private key. An error names the setting at fault.
    pub(crate) fn load(cert: &Path, key: &Path) -> Result<Self> {
        let loaded = RwLock::new(read(cert, key)?);
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), loaded })
    }

    /// Returns an acceptor with the certificate read last.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.loaded.read().unwrap_or_else(PoisonError::into_inner).config.clone())
    }

    /// Reads both files again. An error leaves the certificate read before in use.
    fn reload(&self) -> Result<()> {
        let loaded = read(&self.cert, &self.key)?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// Reads the files again when they change, and on `Reload`.
    pub(crate) async fn watch(self: Arc<Self>, actor: ActorContext) -> Result<()> {
        let mut orders = actor.orders();
        actor.status.set_state("watching the certificate files");
        let mut check = tokio::time::interval(limits::CERTIFICATE_CHECK);
        loop {
            tokio::select! {
                () = actor.stop.cancelled() => return Ok(()),
                received = orders.recv() => {
                    if *received.order() == Order::Reload {
                        match self.clone().reload_in_background(false).await {
                            Ok(()) => received.accept(),
                            Err(error) => received.refuse(format!("{error:#}")),
                        }
                    }
                }
                _ = check.tick() => {
                    // A failure is logged, and tried again at the next check: the files may be replaced one by one.
                    let _ = self.clone().reload_in_background(true).await;
                }
            }
        }
    }

    /// Reloads on a thread that may block on files, and logs the outcome.
    async fn reload_in_background(self: Arc<Self>, only_if_outdated: bool) -> Result<()> {
        let reload = move || {
            if only_if_outdated && !self.is_outdated() {
                return Ok(());
            }
            let path = self.cert.display();
            match self.reload() {
                Ok(()) => tracing::info!(%path, "certificate reloaded; new connections use it"),
                Err(error) => {
                    tracing::warn!(%path, error = format!("{error:#}"), "certificate not reloaded; the old one stays in use");
                    return Err(error);
                }
            }
            Ok(())
        };
        tokio::task::spawn_blocking(reload).await.context("the reload panicked")?
    }

    /// Returns true if a file was modified after it was read.
    fn is_outdated(&self) -> bool {
        let read = self.loaded.read().unwrap_or_else(PoisonError::into_inner).modified;
        modified(&self.cert, &self.key) != read
    }
}

fn modified(cert: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [cert, key].map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
}

fn read(cert: &Path, key: &Path) -> Result<Loaded> {
    let modified = modified(cert, key);
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("ingest.tls_cert: cannot read {}", cert.display()))?;
    ensure!(!chain.is_empty(), "ingest.tls_cert: {} holds no certificate", cert.display());
    let key_der = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("ingest.tls_key: cannot read {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .context("ingest.tls_cert and ingest.tls_key do not belong together")?;
    Ok(Loaded { config: Arc::new(config), modified })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn certificate_is_reloaded_from_modified_files_and_kept_when_they_are_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::copy("tests/data/localhost.crt", &cert).unwrap();
        std::fs::copy("tests/data/localhost.key", &key).unwrap();
        let certificate = Certificate::load(&cert, &key).unwrap();
        let config = || certificate.loaded.read().unwrap().config.clone();
        let first = config();
        assert!(!certificate.is_outdated());

        std::fs::write(&cert, "no certificate").unwrap();
        let error = format!("{:#}", certificate.reload().unwrap_err());
        assert!(error.contains("ingest.tls_cert"), "{error}");
        assert!(Arc::ptr_eq(&first, &config()), "the old certificate stays in use");

        std::fs::copy("tests/data/localhost.crt", &cert).unwrap();
        let later = SystemTime::now() + Duration::from_mins(1);
        std::fs::File::options().write(true).open(&cert).unwrap().set_modified(later).unwrap();
        assert!(certificate.is_outdated());
        certificate.reload().unwrap();
        assert!(!Arc::ptr_eq(&first, &config()));
        assert!(!certificate.is_outdated());
    }
}
