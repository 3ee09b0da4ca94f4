// The network between the browsers and the servers: loopback, in a network namespace of this test run's own, with a firewall.
import { execFileSync } from 'node:child_process';

const nft = (...rule: string[]): void => {
  execFileSync('nft', rule, { stdio: ['ignore', 'ignore', 'inherit'] });
};
const PREFIX = 'wireloom';
let last = 0;
const cuts = new Set<string>();

/** Packets to and from these ports are dropped on arrival, without a word. Answers how to end that. */
export function cut(ports: number[], protocols: ('tcp' | 'udp')[] = ['tcp', 'udp']): () => void {
  const table = `${PREFIX}${++last}`;
  cuts.add(table);
  nft('add', 'table', 'inet', table);
  nft('add', 'chain', 'inet', table, 'arriving', '{ type filter hook input priority 0; }');
  for (const protocol of protocols) {
    for (const way of ['sport', 'dport']) {
      nft('add', 'rule', 'inet', table, 'arriving', protocol, way, `{ ${ports.join(', ')} }`, 'drop');
    }
  }
  return () => {
    if (cuts.delete(table)) nft('delete', 'table', 'inet', table);
  };
}

/** Ends all of them. */
export function heal(): void {
  for (const table of cuts) nft('delete', 'table', 'inet', table);
  cuts.clear();
}
