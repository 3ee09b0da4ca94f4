/**
 * What went wrong:
 *
 * - `application`: the handler answered with an error; `code` is its code.
 * - `internal`: the handler failed, or the server did.
 * - `shutdown`: the server is shutting down and did not handle the request.
 * - `sessionNotFound`, `maxSessionConnections`, `sessionsDisabled`: the server's answers about sessions.
 * - `timeout`: no reply in time. The handler may have run.
 * - `disconnected`: the connection was lost before the reply. The handler may have run.
 * - `unknownOutcome`: a publication was repeated for as long as the server remembers its key; it may have been published.
 * - `closed`: the client was closed, by the application or by an error that trying again does not mend.
 * - `unreachable`: no transport could connect. Connecting is tried again.
 * - `rejected`: the server speaks something else. Final.
 * - `dismissed`: the server does not want the client back: a kick, a ban, a log-in that is over. Its reason is the message. Final;
 *   requests that were sent may have been handled.
 * - `tooLarge`: larger than the server's message buffer; nothing was sent.
 * - `invalid`: a name, key, payload or option that cannot be sent; nothing was sent.
 * - `queueFull`: more requests and signals wait than `maxPending` allows; nothing was sent.
 */
export type ErrorKind =
  | 'application'
  | 'internal'
  | 'shutdown'
  | 'sessionNotFound'
  | 'maxSessionConnections'
  | 'sessionsDisabled'
  | 'timeout'
  | 'disconnected'
  | 'unknownOutcome'
  | 'closed'
  | 'unreachable'
  | 'rejected'
  | 'dismissed'
  | 'tooLarge'
  | 'invalid'
  | 'queueFull';

/** Every error of this package. A request that its caller aborts rejects with the signal's reason instead. */
export class WireloomError extends Error {
  override readonly name = 'WireloomError';
  /** Whose fault it is, and whether trying again may help. */
  readonly kind: ErrorKind;
  /** The application's code, where `kind` is `application`; else the kind. */
  readonly code: string;

  constructor(kind: ErrorKind, message: string, code: string = kind, cause?: unknown) {
    super(message || code, cause === undefined ? undefined : { cause });
    this.kind = kind;
    this.code = code;
  }
}

/** An unknown thing that was thrown, in words. */
export const describe = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** An error of the given kind for what was thrown; `what` it was about. One of this package stays as it is if that is not said. */
export const wrap = (kind: ErrorKind, error: unknown, what = ''): WireloomError =>
  !what && error instanceof WireloomError ? error : new WireloomError(kind, what + describe(error), undefined, error);
