//! A stream that outlives the org's delivery limit: what is not delivered is told as missing, window by window, so that
//! reads keep the store in step, and the stream goes on from its place once the org delivers again.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::crm::port::{DeliverySpent, Heard, Listener, Lost, LostCause, Selection, Start};
use crate::fault::Fault;
use crate::flow::board::Life;
use crate::flow::road::Road;
use crate::model::position::Position;

/// The stream that was opened at `start`, or refused there. Only what goes on after a stored place is outlived: of a
/// stream that begins, nobody knows what it missed.
///
/// # Errors
/// Any other refusal.
pub(super) fn outlive(
    road: &Road,
    selections: Vec<Selection>,
    start: Start,
    opened: Result<Box<dyn Listener>, Fault>,
) -> Result<Box<dyn Listener>, Fault> {
    let place = match start {
        Start::After(position) => Some(position),
        Start::Now | Start::Earliest => None,
    };
    let stream = match opened {
        Ok(listener) => Stream::Open(listener),
        Err(fault) if place.is_some() && is_spent(&fault) => Stream::Refused(fault),
        Err(fault) => return Err(fault),
    };
    Ok(Box::new(Outliving {
        road: road.clone(),
        selections,
        place,
        stream,
        told_to: None,
    }))
}

fn is_spent(fault: &Fault) -> bool {
    fault.is_caused_by::<DeliverySpent>()
}

struct Outliving {
    road: Road,
    selections: Vec<Selection>,
    /// Where the stream stands, as far as it said.
    place: Option<Position>,
    stream: Stream,
    /// To when it was told what is missing, since the org stopped delivering.
    told_to: Option<DateTime<Utc>>,
}

enum Stream {
    Open(Box<dyn Listener>),
    /// Refused just now.
    Refused(Fault),
    /// The org is asked again at one instant, and what is missing is told at the other.
    Waiting {
        again: Instant,
        tell: Instant,
    },
}

#[async_trait]
impl Listener for Outliving {
    async fn next(&mut self) -> Result<Heard, Fault> {
        loop {
            match &mut self.stream {
                Stream::Open(listener) => match listener.next().await {
                    Ok(heard) => {
                        if let Some(position) = &heard.position {
                            self.place = Some(position.clone());
                        }
                        return Ok(heard);
                    }
                    Err(fault) if self.place.is_some() && is_spent(&fault) => {
                        self.stop_listening(Stream::Refused(fault)).await;
                    }
                    Err(fault) => return Err(fault),
                },
                Stream::Refused(fault) => {
                    let wait = fault.wait_hint().unwrap_or(self.road.settings.untold_poll);
                    let what = "the stream is refused, and read by windows meanwhile";
                    super::show_fault(&self.road, Life::Retrying, fault, wait, what);
                    self.stream = self.waiting(wait);
                    return self.missed().await;
                }
                Stream::Waiting { again, tell } => {
                    let (again, tell) = (*again, *tell);
                    tokio::time::sleep_until(again.min(tell)).await;
                    if again <= Instant::now() {
                        self.open().await?;
                    } else {
                        self.stream = Stream::Waiting {
                            again,
                            tell: Instant::now() + self.road.settings.untold_poll,
                        };
                        return self.missed().await;
                    }
                }
            }
        }
    }

    async fn stop(self: Box<Self>) {
        if let Stream::Open(listener) = self.stream {
            listener.stop().await;
        }
    }
}

impl Outliving {
    fn waiting(&self, wait: Duration) -> Stream {
        let now = Instant::now();
        Stream::Waiting {
            again: now + wait,
            tell: now + self.road.settings.untold_poll,
        }
    }

    async fn stop_listening(&mut self, next: Stream) {
        if let Stream::Open(listener) = std::mem::replace(&mut self.stream, next) {
            listener.stop().await;
        }
    }

    async fn open(&mut self) -> Result<(), Fault> {
        let Some(place) = self.place.clone() else {
            return Ok(());
        };
        let opened = self.road.crm.listen(&self.selections, Start::After(place));
        self.stream = match opened.await {
            Ok(listener) => Stream::Open(listener),
            Err(fault) if is_spent(&fault) => Stream::Refused(fault),
            Err(fault) => return Err(fault),
        };
        if matches!(self.stream, Stream::Open(_)) {
            self.told_to = None;
            super::show_streaming(&self.road);
        }
        Ok(())
    }

    /// Tells of every object that what was committed since the last time is missing.
    async fn missed(&mut self) -> Result<Heard, Fault> {
        let to = self.road.end_of_now().await?;
        let since = self.told_to.replace(to);
        let lost = |selection: &Selection| Lost {
            object: selection.object.clone(),
            cause: LostCause::DeliveryLimit { since },
            to,
        };
        Ok(Heard {
            lost: self.selections.iter().map(lost).collect(),
            ..Heard::default()
        })
    }
}
