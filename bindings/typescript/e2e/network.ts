// The network between the browsers and the servers: loopback, in a network namespace of this test run's own, with a firewall.
import { execFileSync } from 'node:child_process';

const nft = (...rule: string[]): void => {
  execFileSync('nft', rule, { stdio: ['ignore', 'ignore', 'inherit'] });
};

/** Packets to and from these ports are dropped on arrival, without a word. */
export function cut(ports: number[], protocols: ('tcp' | 'udp')[] = ['tcp', 'udp']): void {
  heal();
  nft('add', 'table', 'inet', 'wireloom');
  nft('add', 'chain', 'inet', 'wireloom', 'arriving', '{ type filter hook input priority 0; }');
  for (const protocol of protocols) {
    for (const way of ['sport', 'dport']) {
      nft('add', 'rule', 'inet', 'wireloom', 'arriving', protocol, way, `{ ${ports.join(', ')} }`, 'drop');
    }
  }
}

export function heal(): void {
  nft('add', 'table', 'inet', 'wireloom');
  nft('delete', 'table', 'inet', 'wireloom');
}
