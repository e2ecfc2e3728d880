//! The application as it is now, and its replacement by another one while requests run.
//!
//! A reload makes a new [`App`] out of the configuration and of the parts that live on: store, contexts, handles, engines,
//! upstreams whose settings are the same. Then it is swapped in at once. A request works with the one it began with from
//! its head to its last byte, so that no request sees half of a change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use holdfast_store::StoreError;
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;

use crate::app::{App, AppOptions};
use crate::audit::{Act, Actor, Audit};

/// How often what has expired is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// How often what other replicas have made and removed is looked for: every so many sweeps.
const CENSUS_EVERY: u32 = 6;

/// How often the store is told when keys were last used.
const WRITE_USES_EVERY: Duration = Duration::from_secs(60);

/// Reads the configuration once more.
pub type Reread = Box<dyn Fn() -> BoxFuture<'static, Result<Renewal, ReloadError>> + Send + Sync>;

/// What a configuration that was read again asks for.
pub struct Renewal {
    /// What applies from now on.
    pub options: AppOptions,
    /// Keys of the configuration that have changed and can't be applied while the server runs.
    pub needs_restart: Vec<String>,
    /// Done when the new application has taken over: what lies outside of it (the log, certificates).
    pub then: Box<dyn FnOnce(&App) + Send>,
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is wrong; each problem with its file, line and column.
    #[error("{}", .0.join("; "))]
    Configuration(Vec<String>),
    /// It is sound, and can't be put into effect.
    #[error("{0}")]
    Failed(String),
    /// The audit log can't be written.
    #[error("the audit log can't be written: {0}")]
    NotNoted(StoreError),
}

/// The running service.
pub struct Service {
    app: ArcSwap<App>,
    reread: Option<Reread>,
    /// One reload at a time.
    reloading: AsyncMutex<()>,
    /// Ends the background work at the upstreams of the present application.
    tending: Mutex<CancellationToken>,
}

impl Service {
    /// A service that stays as it is unless [`Service::replace`] is called.
    pub fn new(app: Arc<App>) -> Arc<Self> {
        Self::of(app, None)
    }

    /// A service that can read its configuration again.
    pub fn reloadable(app: Arc<App>, reread: Reread) -> Arc<Self> {
        Self::of(app, Some(reread))
    }

    fn of(app: Arc<App>, reread: Option<Reread>) -> Arc<Self> {
        Arc::new(Service {
            tending: Mutex::new(app.stopping.child_token()),
            app: ArcSwap::new(app),
            reread,
            reloading: AsyncMutex::default(),
        })
    }

    /// The application as it is now.
    pub fn app(&self) -> Arc<App> {
        self.app.load_full()
    }

    /// Takes up the contexts that live on, and begins the background work.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn start(self: &Arc<Self>) -> Result<(), StoreError> {
        let app = self.app();
        // First, for what is taken up may be in there.
        if let Some(shared) = &app.shared {
            shared.connect().await;
            app.tasks
                .spawn(Arc::clone(shared).run(app.stopping.clone()));
        }
        app.resume().await?;
        let service = Arc::clone(self);
        app.tasks
            .spawn(async move { service.sweep_until_stopped().await });
        let service = Arc::clone(self);
        app.tasks
            .spawn(async move { service.write_uses_until_stopped().await });
        let (ledger, stopping) = (Arc::clone(&app.ledger), app.stopping.clone());
        app.tasks.spawn(async move { ledger.run(stopping).await });
        let (ledger, stopping) = (Arc::clone(&app.ledger), app.stopping.clone());
        app.tasks
            .spawn(async move { ledger.erase_until(stopping).await });
        app.tasks
            .spawn(crate::upstream::run(Arc::clone(&app.upstreams.shared)));
        self.tend(&app);
        Ok(())
    }

    /// Reads the configuration again and puts it into effect. Returns what needs a restart.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn reload(&self, actor: Actor) -> Result<Vec<String>, ReloadError> {
        let _alone = self.reloading.lock().await;
        let app = self.app();
        let audit = Audit {
            log: &*app.store,
            actor,
            now: app.now(),
        };
        let act = Act {
            name: "config.reload",
            target: "",
            project: None,
        };
        let result = audit
            .around(act, serde_json::json!({}), self.reload_alone())
            .await
            .unwrap_or_else(|error| Err(ReloadError::NotNoted(error)));
        let app = self.app();
        app.events.reloaded(result.as_ref().map(|_| ()));
        match &result {
            Ok(needs_restart) if needs_restart.is_empty() => {
                tracing::info!("the configuration has been reloaded");
            }
            Ok(needs_restart) => tracing::warn!(
                needs_restart = needs_restart.join(", "),
                "the configuration has been reloaded; what needs a restart stays as it was"
            ),
            Err(error) => {
                tracing::error!(%error, "the configuration can't be reloaded; everything stays as it was");
            }
        }
        result
    }

    async fn reload_alone(&self) -> Result<Vec<String>, ReloadError> {
        let Some(reread) = &self.reread else {
            let why = "this server was started without a configuration";
            return Err(ReloadError::Failed(why.to_owned()));
        };
        let Renewal {
            options,
            needs_restart,
            then,
        } = reread().await?;
        self.replace(options).map_err(ReloadError::Failed)?;
        then(&self.app.load());
        Ok(needs_restart)
    }

    /// Puts other options into effect. The installation's secret and who shares prefixes stay as they were.
    ///
    /// # Errors
    /// The options do not fit together; the text says why, and nothing has changed.
    pub fn replace(&self, options: AppOptions) -> Result<(), String> {
        let app = self.app().reloaded(options)?;
        self.app.store(Arc::clone(&app));
        self.tend(&app);
        Ok(())
    }

    /// Ends the background work; see [`App::stop`].
    pub async fn stop(&self) {
        self.app().stop().await;
    }

    /// From now on the background work at upstreams is done at those of `app`.
    fn tend(&self, app: &App) {
        let ended = app.stopping.child_token();
        let before = std::mem::replace(
            &mut *self.tending.lock().unwrap_or_else(PoisonError::into_inner),
            ended.clone(),
        );
        before.cancel();
        let pools = app
            .upstreams
            .iter()
            .map(|upstream| Arc::clone(&upstream.pool));
        let checked: Vec<_> = pools.filter(|pool| pool.health.is_some()).collect();
        if !checked.is_empty() {
            app.tasks
                .spawn(crate::upstream::check_until(checked, ended.clone()));
        }
        let targets = app.models.targets();
        if !targets.is_empty() {
            let shared = Arc::clone(&app.upstreams.shared);
            app.tasks
                .spawn(crate::upstream::tend_until(shared, targets, ended));
        }
    }

    async fn write_uses_until_stopped(&self) {
        let stopping = self.app().stopping.clone();
        let mut is_stopping = false;
        while !is_stopping {
            tokio::select! {
                () = stopping.cancelled() => is_stopping = true,
                () = tokio::time::sleep(WRITE_USES_EVERY) => {}
            }
            if let Err(error) = self.app().write_key_uses().await {
                tracing::warn!(%error, "the last uses of keys can't be stored now");
            }
        }
    }

    async fn sweep_until_stopped(&self) {
        let stopping = self.app().stopping.clone();
        let mut ticks = tokio::time::interval(SWEEP_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for sweep in 0_u32.. {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let app = self.app();
            if let Err(error) = app.sweep().await {
                tracing::warn!(%error, "what has expired can't be removed now");
            }
            if sweep % CENSUS_EVERY == CENSUS_EVERY - 1
                && let Err(error) = app.take_census().await
            {
                tracing::warn!(%error, "what other replicas have made and removed can't be looked for now");
            }
        }
    }
}
