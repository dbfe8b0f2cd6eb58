//! Against the simulated bus: each trap of the queue, over TCP and over WebSocket.

mod faults;
mod flow;
mod world;
