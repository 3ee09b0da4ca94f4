// A page of its own for each test, with the committed bundle: over plain HTTP on localhost, which is a secure context.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';

export class Pages {
  #server: Server;
  readonly origin: string;

  private constructor(server: Server) {
    this.#server = server;
    this.origin = `http://localhost:${(server.address() as AddressInfo).port}`;
  }

  static async serve(): Promise<Pages> {
    const bundle = readFileSync(new URL('../wireloom.min.js', import.meta.url));
    const server = createServer((request, response) => {
      const isBundle = request.url === '/wireloom.min.js';
      response.setHeader('content-type', isBundle ? 'text/javascript' : 'text/html');
      response.end(isBundle ? bundle : '<!doctype html><title>test</title>');
    });
    await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
    return new Pages(server);
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}
