// A real identity provider for the tests: oidc-provider on loopback, whose signing key changes on POST /rotate.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const AUDIENCE = 'api://lodestream';

function signingKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };
}

function provider(issuer) {
  const made = new Provider(issuer, {
    jwks: { keys: [signingKey()] },
    cookies: { keys: ['only for tests'] },
    clients: [
      { client_id: 'robot', client_secret: 'robot-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
      {
        client_id: 'console', client_secret: 'console-secret', grant_types: ['authorization_code'],
        redirect_uris: ['https://console.example/callback'], response_types: ['code'],
      },
    ],
    scopes: ['openid', 'lake.read', 'lake.admin'],
    findAccount: (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    features: {
      devInteractions: { enabled: true },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        getResourceServerInfo: (_context, audience) => ({
          audience, scope: 'lake.read lake.admin', accessTokenFormat: 'jwt', accessTokenTTL: 600,
          jwt: { sign: { alg: 'RS256' } },
        }),
        useGrantedResource: () => true,
      },
    },
    extraTokenClaims: async () => ({ groups: ['staff'], extension_region: 'EU' }),
  });
  return made.callback();
}

let answer;
const server = createServer((request, response) => {
  if (request.method === 'POST' && request.url === '/rotate') {
    answer = provider(issuer());
    response.end();
  } else answer(request, response);
});
const issuer = () => `http://127.0.0.1:${server.address().port}`;
server.listen(0, '127.0.0.1', () => {
  answer = provider(issuer());
  console.log(JSON.stringify({ issuer: issuer(), audience: AUDIENCE }));
});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0)); // the tests are gone
