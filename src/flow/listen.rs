//! Listening: from the CRM's stream into ingest, with ingest's queue pushing back.

use tokio::sync::mpsc;

use crate::crm::port::Listener;
use crate::fault::{Fault, FaultKind};
use crate::runtime::shutdown::StopSignal;

use super::ingest::Input;

/// Passes on what the stream says until the stop signal.
///
/// # Errors
/// The stream's fault. What was passed on before it is merged all the same.
pub async fn listen(
    mut listener: Box<dyn Listener>,
    inputs: mpsc::Sender<Input>,
    stop: StopSignal,
) -> Result<(), Fault> {
    let ended = loop {
        let heard = tokio::select! {
            biased;
            () = stop.stopped() => break Ok(()),
            heard = listener.next() => heard,
        };
        match heard {
            Ok(heard) => {
                if inputs.send(Input::Heard(heard)).await.is_err() {
                    break Err(Fault::new(FaultKind::Stopping, "ingest has ended"));
                }
            }
            Err(fault) => break Err(fault),
        }
    };
    listener.stop().await;
    ended
}
