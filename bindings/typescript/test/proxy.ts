import { createServer, connect as connectTcp } from 'node:net';
import type { AddressInfo, Server as TcpServer, Socket } from 'node:net';

/** A TCP proxy that can be cut in several ways. */
export class Proxy {
  readonly sockets = new Set<Socket>();
  #server: TcpServer;
  /** Takes what comes and passes nothing on, as a network that is gone. */
  isSilent = false;
  refuses = false;
  accepted = 0;

  private constructor(target: number) {
    this.#server = createServer((socket) => {
      if (this.refuses) {
        socket.destroy();
        return;
      }
      this.accepted++;
      const to = connectTcp(target, '127.0.0.1');
      for (const [one, other] of [
        [socket, to],
        [to, socket],
      ] as const) {
        this.sockets.add(one);
        one.on('data', (data) => this.isSilent || other.write(data));
        one.on('close', () => {
          this.sockets.delete(one);
          other.destroy();
        });
        one.on('error', () => {});
      }
    });
  }

  static async to(url: string): Promise<Proxy> {
    const proxy = new Proxy(Number(new URL(url).port));
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}/messages`;
  }

  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}
